// Drop, paste or choose a picture: the form is sent at once. Sliders show their value.
const form = document.getElementById("drop");

function send(file) {
  if (!file || !file.type.startsWith("image/")) return;
  const files = new DataTransfer();
  files.items.add(file);
  form.image.files = files.files;
  submit();
}

function submit() {
  form.classList.add("busy");
  form.querySelector("label").textContent = "Searching…";
  form.submit();
}

if (form) {
  form.classList.add("live");
  form.image.addEventListener("change", () => form.image.files.length && submit());
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    form.classList.add("over");
  });
  document.addEventListener("dragleave", () => form.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    send(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => send(event.clipboardData.files[0]));
}

for (const slider of document.querySelectorAll("input[type=range]")) {
  const value = slider.parentElement.querySelector(".value");
  slider.addEventListener("input", () => (value.textContent = slider.value));
}

// Empty fields stay out of the address, so that it can be read and shared.
for (const options of document.querySelectorAll("form.options")) {
  options.addEventListener("submit", () => {
    for (const field of options.elements) if (field.name && field.value === "") field.disabled = true;
  });
}

// A picture that is not there leaves its place, not a broken image.
for (const image of document.querySelectorAll(".frame img, .samples img, figure img")) {
  const blank = () => image.parentElement.classList.add("missing");
  if (image.complete && !image.naturalWidth) blank();
  image.addEventListener("error", blank);
}
