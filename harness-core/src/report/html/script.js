// Search and filter only: the page is complete without it.
(() => {
  const bar = document.getElementById('filter');
  const cards = [...document.querySelectorAll('article.scenario')];
  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    const details = target && target.querySelector('details');
    if (details && target.matches('article')) { details.open = true; target.scrollIntoView(); }
  };
  addEventListener('hashchange', reveal);
  reveal();
  if (!bar || cards.length === 0) return;
  bar.hidden = false;
  const search = bar.querySelector('input');
  const chips = [...bar.querySelectorAll('button[data-only]')];
  const toggle = bar.querySelector('button[data-toggle]');
  const status = bar.querySelector('[role=status]');
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const apply = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const only = chips.filter((chip) => chip.getAttribute('aria-pressed') === 'true').map((chip) => chip.dataset.only);
    let shown = 0;
    cards.forEach((card, n) => {
      const show = (only.length === 0 || only.includes(card.dataset.outcome)) && words.every((word) => texts[n].includes(word));
      card.hidden = !show;
      shown += show ? 1 : 0;
    });
    status.textContent = shown === cards.length ? '' : shown + ' of ' + cards.length + ' shown';
  };
  search.addEventListener('input', apply);
  chips.forEach((chip) => chip.addEventListener('click', () => {
    chip.setAttribute('aria-pressed', String(chip.getAttribute('aria-pressed') !== 'true'));
    apply();
  }));
  toggle.addEventListener('click', () => {
    const open = toggle.getAttribute('aria-pressed') !== 'true';
    toggle.setAttribute('aria-pressed', String(open));
    cards.forEach((card) => { card.querySelector('details').open = open; });
  });
  addEventListener('keydown', (event) => {
    const typing = /^(input|textarea|select)$/i.test(document.activeElement.tagName);
    if (event.key === '/' && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); search.focus(); }
    if (event.key === 'Escape' && document.activeElement === search) { search.value = ''; apply(); }
  });
})();
