// What a reader of the page may stumble over: contrast, names, headings, tables, ids, sideways scrolling.
// Findings go to the frame that holds the page, as one JSON list of [kind, where].
addEventListener('load', () => {
  const found = [];
  const where = (node) => {
    const id = node.id ? '#' + node.id : '';
    const name = node.getAttribute('class') ? '.' + node.getAttribute('class').trim().split(/\s+/).join('.') : '';
    return node.localName + id + name + ' ' + JSON.stringify(node.textContent.trim().replace(/\s+/g, ' ').slice(0, 40));
  };
  const say = (kind, node) => found.push([kind, where(node)]);
  document.querySelectorAll('details').forEach((part) => { part.open = true; });
  const all = [...document.querySelectorAll('body *')].filter((node) => !node.closest('script, style, symbol, [hidden]'));
  const shown = (node) => node.getClientRects().length > 0 && getComputedStyle(node).visibility === 'visible';

  // WCAG 2.2, 1.4.3: 4.5 to 1, and 3 to 1 for large text; relative luminance as defined there.
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((n) => top[n] * top[3] + under[n] * (1 - top[3])).concat(1);
  const luminance = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((part) => part / 255).map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const sheet = rgba(getComputedStyle(document.documentElement).colorScheme.includes('dark') && matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#ffffff');
  const behind = (node) => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), sheet);
  };
  for (const node of all.filter(shown)) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || node.closest('[aria-hidden=true]')) continue;
    const style = getComputedStyle(node);
    const under = behind(node);
    const text = rgba(node.ownerSVGElement ? style.fill : style.color);
    const [light, dark] = [luminance(over(text, under)), luminance(under)].sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if ((light + 0.05) / (dark + 0.05) < (large ? 3 : 4.5)) say('contrast', node);
  }

  const named = (node) => (node.getAttribute('aria-label') || '').trim()
    || (node.getAttribute('aria-labelledby') || '').split(/\s+/).some((id) => id && document.getElementById(id))
    || node.textContent.trim() || (node.getAttribute('alt') || '').trim()
    || [...(node.labels || [])].some((label) => label.textContent.trim());
  for (const node of all) {
    if (node.matches('a[href], button, input, select, textarea, summary, [role=img], img') && !node.closest('[aria-hidden=true]') && !named(node)) say('name', node);
    if (node.matches('svg:not([role]):not([aria-hidden])')) say('name', node);
  }

  let level = 0;
  const headings = all.filter((node) => /^h[1-6]$/.test(node.localName));
  for (const node of headings) {
    const own = Number(node.localName[1]);
    if (own > level + 1 || !node.textContent.trim()) say('heading', node);
    level = own;
  }
  if (headings.filter((node) => node.localName === 'h1').length !== 1) say('heading', document.body);

  for (const table of all.filter((node) => node.localName === 'table')) {
    const heads = [...table.querySelectorAll('th')];
    if (!heads.length || heads.some((head) => !head.getAttribute('scope'))) say('table', table);
  }

  const ids = [...document.querySelectorAll('[id]')].map((node) => node.id);
  new Set(ids.filter((id, n) => ids.indexOf(id) !== n)).forEach((id) => say('id', document.getElementById(id)));
  for (const link of all.filter((node) => node.matches('a[href^="#"]'))) {
    if (!document.getElementById(decodeURIComponent(link.getAttribute('href').slice(1)))) say('target', link);
  }
  if (!document.documentElement.lang || !document.title.trim()) say('language', document.documentElement);
  if (document.documentElement.scrollWidth > innerWidth) say('sideways', document.body);
  parent.postMessage(JSON.stringify(found), '*');
});
