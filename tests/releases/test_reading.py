"""What the commands on an index read and change when something was released."""

from irgen.index.index import Index


def found(project, irgen) -> dict:
    (project.root / "query.png").write_bytes(project.query)
    done = irgen("search", project.root / "query.png", "--json")
    assert done.status == 0, done.err
    return done


def number(folder) -> int:
    with Index.open(folder) as index:
        return index.info()["config"]["number"]


def test_searches_read_what_is_served_and_not_what_the_pipeline_made_since(project, release, irgen):
    before = irgen("info").out
    assert "data/index" in before and "release " not in before
    release()
    project.builds(2, bad=True)
    assert release()["status"] == 3
    served = project.store / project.champion()
    output = irgen("info").out
    assert str(served) in output and "number 1, of data revision 7" in output
    assert len(found(project, irgen).said[0]["hits"]) == 10


def test_changes_begin_with_a_copy_of_what_is_served(project, release, irgen):
    release()
    project.builds(2, bad=True)
    release()
    done = irgen("remove", "image-0-0")
    assert done.status == 0, done.err
    own = project.root / "index"
    assert number(own) == 1
    with Index.open(own) as index, Index.open(project.store / "champion") as served:
        assert (len(index), len(served)) == (31, 32)
    assert str(own) in irgen("info").out
    project.builds(3)
    release()
    assert "which is served now" in found(project, irgen).err
    assert "which is served now" in irgen("info").out


def test_a_release_is_never_changed(project, release, irgen):
    release()
    for folder in (project.store / "champion", project.store / project.champion()):
        done = irgen("remove", "image-0-0", "--index", folder)
        assert done.status == 2 and "is a release, which never changes" in done.err
