"""Published indexes: numbered, never changed, one of them the champion that is served."""
