/** Light or dark: as the system says, until the user chooses. */

const KEY = "simmat-theme";

export function setUpTheme(button: HTMLElement): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    document.documentElement.dataset.theme = remembered() ?? (system.matches ? "dark" : "light");
  };
  system.addEventListener("change", show);
  button.addEventListener("click", () => {
    const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    remember(other);
    document.documentElement.dataset.theme = other;
  });
  show();
}

/** Some browsers refuse storage to pages from a disk. */
function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function remember(theme: string): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // it is chosen again the next time
  }
}
