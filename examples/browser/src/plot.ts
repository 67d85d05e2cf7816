// A curve of losses as SVG, drawn anew for each step.

const [width, height, left, right, top, bottom] = [640, 180, 44, 12, 12, 26];

function element(name: string, attributes: Readonly<Record<string, string | number>>, text = ''): SVGElement {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.textContent = text;
  return made;
}

/** The largest of 1, 2, 5 times a power of ten that is at most `span / 3`. */
function tickOf(span: number): number {
  const power = 10 ** Math.floor(Math.log10(span / 3));
  return [5, 2, 1].map(m => m * power).find(t => t <= span / 3) ?? power;
}

/** Losses by step, from step 1, on an axis of `total` steps. */
export function drawLosses(svg: SVGElement, losses: readonly number[], total: number): void {
  const high = losses.length === 0 ? 1 : Math.max(1e-6, ...losses.filter(Number.isFinite));
  const x = (step: number): number => left + ((width - left - right) * (step - 1)) / Math.max(1, total - 1);
  const y = (loss: number): number => height - bottom - ((height - top - bottom) * loss) / high;
  const parts: SVGElement[] = [];
  const tick = tickOf(high);
  for (let value = 0; value <= high; value += tick) {
    parts.push(element('line', { class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    parts.push(
      element('text', { x: left - 8, y: y(value) + 4, 'text-anchor': 'end' }, String(Number(value.toPrecision(6)))),
    );
  }
  parts.push(
    element('text', { x: left, y: height - 6 }, 'step 1'),
    element('text', { x: width - right, y: height - 6, 'text-anchor': 'end' }, `step ${total}`),
  );
  if (losses.length > 0) {
    const last = losses.length;
    parts.push(
      element('polyline', {
        class: 'curve',
        points: losses.map((loss, i) => `${x(i + 1).toFixed(1)},${y(loss).toFixed(1)}`).join(' '),
      }),
    );
    parts.push(element('circle', { class: 'end', r: 3.5, cx: x(last), cy: y(losses[last - 1]) }));
  }
  svg.replaceChildren(...parts);
  const [first, now] = [losses[0], losses.at(-1)];
  svg.setAttribute(
    'aria-label',
    first === undefined || now === undefined
      ? 'Training loss: no steps yet'
      : `Training loss over ${losses.length} of ${total} steps: from ${first.toFixed(3)} to ${now.toFixed(3)}`,
  );
}
