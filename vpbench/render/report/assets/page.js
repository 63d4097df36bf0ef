// Light and dark, and a chart and a table in every section.

const THEMES = ["system", "light", "dark"];

function remembered() {
  try {
    return localStorage.getItem("vpbench-theme");
  } catch {
    return null; // some browsers keep nothing for pages opened from a file
  }
}

function remember(theme) {
  try {
    localStorage.setItem("vpbench-theme", theme);
  } catch {
    return; // then the next visit starts as the system does
  }
}

function setTheme(theme, button) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  button.dataset.theme = theme;
  button.textContent = `Theme: ${theme === "system" ? "as the system" : theme}`;
}

const themeButton = document.getElementById("theme");
setTheme(THEMES.includes(remembered()) ? remembered() : "system", themeButton);
themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(themeButton.dataset.theme) + 1) % THEMES.length];
  setTheme(next, themeButton);
  remember(next);
});

JSON.parse(document.getElementById("data").textContent).sections.forEach((section, i) => {
  const figure = document.querySelector(`#section-${i} .chart`);
  if (figure) new Chart(figure, section.chart, section.table, `section-${i}`);
  for (const place of document.querySelectorAll(`#section-${i} .listing`))
    new Listing(place, section[place.dataset.of], `section-${i}-${place.dataset.of}`);
});
// On paper nothing can be unfolded.
const folded = [...document.querySelectorAll("details")];
window.addEventListener("beforeprint", () => folded.forEach((part) => { part.open = true; }));
window.addEventListener("afterprint", () => folded.forEach((part) => { part.open = false; }));

document.documentElement.dataset.drawn = "";
