export type Theme = 'system' | 'light' | 'dark';

export function theme(): Theme {
  const chosen = document.documentElement.dataset['theme'];
  return chosen === 'light' || chosen === 'dark' ? chosen : 'system';
}

/** `public/theme.js` reads it back before the next page paints. */
export function setTheme(chosen: Theme): void {
  if (chosen === 'system') {
    delete document.documentElement.dataset['theme'];
    localStorage.removeItem('theme');
  } else {
    document.documentElement.dataset['theme'] = chosen;
    localStorage.setItem('theme', chosen);
  }
  dispatchEvent(new Event('themechange'));
}
