// Drop, paste or choose a picture: the form is sent at once. Sliders show their value.
const form = document.getElementById("drop");
const invitation = form?.querySelector("label").innerHTML;

function send(file) {
  if (!file) return;
  if (!file.type.startsWith("image/")) {
    form.querySelector("label").textContent = `${file.name} is no picture: drop or choose another file`;
    return;
  }
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

// Whoever comes back finds the forms as they were.
window.addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  for (const field of document.querySelectorAll("form.options :disabled")) field.disabled = false;
  if (form) {
    form.classList.remove("busy");
    form.reset();
    form.querySelector("label").innerHTML = invitation;
  }
});

// A picture that is not there leaves its place, not a broken image.
for (const image of document.querySelectorAll(".frame img, .samples img, figure img")) {
  const blank = () => image.parentElement.classList.add("missing");
  if (image.complete && !image.naturalWidth) blank();
  image.addEventListener("error", blank);
}
