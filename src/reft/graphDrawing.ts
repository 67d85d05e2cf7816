// A graph of edits as text for Mermaid and as SVG. Blocks in which nothing is edited are folded into one box. Only what
// GraphJSON says is drawn.

import type { EditNode, GraphJSON } from './graph.js';

interface Row {
  readonly label: string;
  /** Edits that stand here, in order. */
  readonly edits: readonly EditNode[];
}

/**
 * The residual stream from the embeddings to the final norm: a row for each run of unedited blocks and for each edited
 * site.
 */
function rowsOf({ model, nodes }: GraphJSON): Row[] {
  const at = new Map<string, EditNode[]>();
  for (const node of nodes) {
    if (node.type !== 'edit') continue;
    const site = node.site.replace(/:\d+$/, '');
    at.set(site, [...(at.get(site) ?? []), node]);
  }
  const editedIn = (layer: number): string[] =>
    nodes.flatMap(n =>
      n.type === 'site' && at.has(n.id) && !isOutside(n.id) && Number(n.id.split('/')[1]) === layer ? [n.id] : [],
    );
  const rows: Row[] = [{ label: 'embeddings', edits: at.get('embeddings/0') ?? [] }];
  let from = 0;
  const fold = (to: number): void => {
    if (to > from) rows.push({ label: to - from === 1 ? `block ${from}` : `blocks ${from} to ${to - 1}`, edits: [] });
  };
  for (let layer = 0; layer < model.layers; layer++) {
    const sites = editedIn(layer);
    if (sites.length === 0) continue;
    fold(layer);
    for (const site of sites) rows.push({ label: `block ${layer}: ${site.split('/')[0]}`, edits: at.get(site) ?? [] });
    from = layer + 1;
  }
  fold(model.layers);
  rows.push(
    { label: 'final_norm', edits: at.get(`final_norm/${model.layers - 1}`) ?? [] },
    { label: 'logits', edits: [] },
  );
  return rows;
}

const isOutside = (id: string): boolean => id.startsWith('embeddings/') || id.startsWith('final_norm/');

/** What a node says of itself, a line each. */
function wordsOf(edit: EditNode): string[] {
  const facts = [
    edit.rank === undefined ? '' : `rank ${edit.rank}`,
    edit.positions === undefined ? '' : `positions ${edit.positions}`,
    edit.scale === undefined || edit.scale === 1 ? '' : `scale ${edit.scale}`,
  ]
    .filter(Boolean)
    .join(', ');
  const parameters = Object.entries(edit.parameters ?? {})
    .map(([name, shape]) => `${name} [${shape.join(',')}]`)
    .join(' ');
  return [`${edit.kind}${edit.enabled ? '' : ' (off)'}  ${edit.id}`, facts, parameters].filter(Boolean);
}

export function drawMermaid(graph: GraphJSON): string {
  const text = (s: string): string =>
    `"${s.replaceAll('"', '#quot;').replaceAll('<', '#lt;').replaceAll('>', '#gt;')}"`;
  const lines = ['flowchart TB'];
  let previous: string | undefined;
  let edits = 0;
  rowsOf(graph).forEach((row, i) => {
    lines.push(`  s${i}[${text(row.label)}]`);
    if (previous !== undefined) lines.push(`  ${previous} --> s${i}`);
    previous = `s${i}`;
    for (const edit of row.edits) {
      const node = `e${edits++}`;
      lines.push(
        `  ${node}([${wordsOf(edit)
          .map(line => text(line).slice(1, -1))
          .join('<br>')
          .replace(/^/, '"')
          .replace(/$/, '"')}])`,
      );
      lines.push(`  ${previous} ${edit.enabled ? '-->' : '-.->'} ${node}`);
      previous = node;
    }
  });
  return `${lines.join('\n')}\n`;
}

export function drawSvg(graph: GraphJSON): string {
  const escape = (s: string): string =>
    s.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
  const rows = rowsOf(graph);
  const [left, boxWidth, gap, line] = [24, 190, 22, 15];
  const editLeft = left + boxWidth + 48;
  const letters = Math.max(20, ...rows.flatMap(row => row.edits.flatMap(edit => wordsOf(edit).map(w => w.length))));
  const editWidth = Math.round(letters * 6.7) + 24;
  const parts: string[] = [];
  let y = 56;
  let bottom: number | null = null;
  for (const row of rows) {
    const heights = row.edits.map(edit => wordsOf(edit).length * line + 14);
    const height = Math.max(
      30,
      heights.reduce((a, b) => a + b + 8, -8),
    );
    const middle = left + boxWidth / 2;
    if (bottom !== null)
      parts.push(
        `<line x1="${middle}" y1="${bottom}" x2="${middle}" y2="${y - 4}" class="stream" marker-end="url(#end)"/>`,
      );
    const [labelY, boxTop] = [y + height / 2 + 4, y + height / 2 - 15];
    if (row.edits.length > 0)
      parts.push(`<line x1="${middle}" y1="${y}" x2="${middle}" y2="${y + height}" class="stream"/>`);
    parts.push(
      `<rect x="${left}" y="${boxTop}" width="${boxWidth}" height="30" rx="4" class="site"/><text x="${middle}" y="${labelY}" text-anchor="middle">${escape(row.label)}</text>`,
    );
    let top = y;
    row.edits.forEach((edit, i) => {
      parts.push(
        `<line x1="${left + boxWidth}" y1="${y + height / 2}" x2="${editLeft}" y2="${top + heights[i] / 2}" class="link"/>`,
      );
      parts.push(
        `<g class="${edit.enabled ? 'edit' : 'edit off'}"><rect x="${editLeft}" y="${top}" width="${editWidth}" height="${heights[i]}" rx="9"/>` +
          `${wordsOf(edit)
            .map(
              (words, n) =>
                `<text x="${editLeft + 12}" y="${top + 19 + n * line}"${n === 0 ? ' class="name"' : ''}>${escape(words)}</text>`,
            )
            .join('')}</g>`,
      );
      top += heights[i] + 8;
    });
    bottom = y + height;
    y += height + gap;
  }
  const [width, height] = [rows.some(row => row.edits.length > 0) ? editLeft + editWidth + 24 : left * 2 + boxWidth, y];
  const { name, architecture, layers, hiddenSize } = graph.model;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, sans-serif" font-size="12">
<style>.site{fill:#f4f5f7;stroke:#8a94a3}.stream{stroke:#8a94a3;stroke-width:2}.link{stroke:#c2570c}.edit rect{fill:#fff4ea;stroke:#c2570c}.edit.off rect{fill:#fff;stroke-dasharray:4 3}.edit.off text{fill:#777}.name{font-weight:600}</style>
<defs><marker id="end" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#8a94a3"/></marker></defs>
<rect width="100%" height="100%" fill="#fff"/>
<text x="${left}" y="30" font-size="14" font-weight="600">${escape(`${name}  ${architecture}, ${layers} layers of ${hiddenSize}`)}</text>
${parts.join('\n')}
</svg>
`;
}
