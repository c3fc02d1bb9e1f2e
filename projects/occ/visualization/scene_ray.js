// Part of scene_viewer.html, where scene_html.py puts it in.
// ---- one ray: what lies along it ------------------------------------------------------------------------------------------
let ray = null;   // {origin, direction (unit), name}
const invert = rows => {   // rigid 3x4 -> position and axes in the reference frame
  const axes = [0, 1, 2].map(i => rows[i].slice(0, 3));
  return {axes, position: [0, 1, 2].map(i => -axes.reduce((sum, axis, k) => sum + axis[i] * rows[k][3], 0))};
};
function cameraRay({rows, fx, fy, cx, cy}, u, v) {
  const {axes, position} = invert(rows), local = [(u - cx) / fx, (v - cy) / fy, 1];
  return {origin: position, direction: unit([0, 1, 2].map(i => axes.reduce((sum, axis, k) => sum + axis[i] * local[k], 0)))};
}
function walk({origin, direction}) {   // cells of the grid along a ray: {cell, near, far}, metres
  const o = origin.map((v, i) => (v - scene.lower[i]) / scene.size[i]), d = direction.map((v, i) => v / scene.size[i]);
  let near = 0, far = Infinity;
  for (let i = 0; i < 3; i++) {
    if (d[i] === 0) { if (o[i] < 0 || o[i] >= scene.shape[i]) return []; continue; }
    const a = -o[i] / d[i], b = (scene.shape[i] - o[i]) / d[i];
    near = Math.max(near, Math.min(a, b)); far = Math.min(far, Math.max(a, b));
  }
  const cells = [], at = o.map((v, i) => Math.min(Math.max(Math.floor(v + near * d[i]), 0), scene.shape[i] - 1));
  const next = o.map((v, i) => d[i] === 0 ? Infinity : (at[i] + (d[i] > 0) - v) / d[i]), delta = d.map(v => Math.abs(1 / v));
  while (near < far && at.every((v, i) => v >= 0 && v < scene.shape[i])) {
    const axis = next.indexOf(Math.min(...next)), leave = Math.min(next[axis], far);
    if (leave > near) cells.push({cell: (at[0] * Y + at[1]) * Z + at[2], near, far: leave});
    near = leave; at[axis] += Math.sign(d[axis]); next[axis] += delta[axis];
  }
  return cells;
}
// opacity of a step and the weight that it has behind all others; hard labels are opaque
function weigh(cells, kind) {
  const volume = current[kind], soft = kind === 'pred' && current.density;
  let light = 1;
  return cells.map(({cell, near, far}) => {
    const id = volume[cell], density = soft ? soft[cell] * scene.density_step : 0;
    const opacity = soft ? 1 - Math.exp(-density * (far - near)) : +(id !== scene.free && id !== scene.ignore);
    const weight = light * opacity;
    light -= weight;
    return {near, far, id, density, opacity, weight};
  });
}
function firstRun(steps) {
  const first = steps.findIndex(s => s.id !== scene.free && s.id !== scene.ignore);
  if (first < 0) return null;
  let last = first;
  while (last + 1 < steps.length && steps[last + 1].id !== scene.free && steps[last + 1].id !== scene.ignore) last++;
  return {near: steps[first].near, far: steps[last].far, id: steps[first].id};
}
function showRay() {
  $('rayBox').style.display = ray ? 'block' : 'none';
  if (!ray || !current) { delete document.documentElement.dataset.ray; return; }
  const cells = walk(ray), kinds = ['gt', 'pred'].filter(kind => current[kind]);
  const steps = Object.fromEntries(kinds.map(kind => [kind, weigh(cells, kind)])), runs = kinds.map(kind => firstRun(steps[kind]));
  const end = cells.length ? cells.at(-1).far : 1, start = cells.length ? cells[0].near : 0;
  const view = $('ray'), ratio = Math.min(window.devicePixelRatio || 1, 2), W = 460, H = 176;
  view.width = W * ratio; view.height = H * ratio;
  const pen = view.getContext('2d'), left = 66, right = W - 20, place = t => left + (t - start) / (end - start) * (right - left);
  pen.scale(ratio, ratio); pen.clearRect(0, 0, W, H); pen.font = '11px system-ui, "DejaVu Sans", sans-serif'; pen.textBaseline = 'middle';
  const colorOf = id => { const c = scene.classes.find(entry => entry.id === id); return c ? `rgb(${c.color})` : '#fff'; };
  kinds.forEach((kind, k) => {
    const top = 6 + k * 26;
    pen.fillStyle = '#222'; pen.fillText(kind === 'gt' ? 'label' : 'prediction', 0, top + 9);
    for (const {near, far, id} of steps[kind]) {
      if (id === scene.free) continue;
      pen.fillStyle = colorOf(id); pen.fillRect(place(near), top, Math.max(place(far) - place(near), 1), 18);
    }
    pen.strokeStyle = '#999'; pen.strokeRect(left, top, right - left, 18);
  });
  // curves of the prediction, or of the label where there is none
  const curved = kinds.at(-1), base = H - 26, height = base - 70;
  pen.strokeStyle = '#999'; pen.strokeRect(left, base - height, right - left, height);
  pen.fillStyle = '#222'; pen.fillText('1', left - 10, base - height); pen.fillText('0', left - 10, base);
  pen.fillStyle = '#1f5fa8'; pen.fillText('opacity', 0, base - height + 16);
  pen.fillStyle = '#cc3311'; pen.fillText('weight', 0, base - height + 32);
  const top = Math.max(...steps[curved].map(s => s.density), 1);   // per metre
  if (current.density) { pen.fillStyle = '#228833'; pen.fillText('density', 0, base - height + 48); pen.fillText(`(1 = ${top.toFixed(1)}/m)`, 0, base - height + 62); }
  for (const [key, color, scale] of [['density', '#228833', top], ['opacity', '#1f5fa8', 1], ['weight', '#cc3311', 1]]) {
    if (key === 'density' && !current.density) continue;
    pen.strokeStyle = color; pen.lineWidth = key === 'weight' ? 3 : 2; pen.beginPath(); pen.moveTo(left, base);
    for (const step of steps[curved]) {
      const y = base - height * step[key] / scale;
      pen.lineTo(place(step.near), y); pen.lineTo(place(step.far), y);
    }
    pen.stroke();
  }
  pen.lineWidth = 1; pen.fillStyle = '#222'; pen.textAlign = 'center';
  const tick = [0.5, 1, 2, 5, 10, 20, 50].find(step => (end - start) / step <= 9) || 100;
  for (let t = Math.ceil(start / tick) * tick; t <= end; t += tick) {
    pen.fillRect(place(t), base, 1, 4); pen.fillText(t === 0 ? '0' : `${t} m`, place(t), base + 13);
  }
  const told = run => run ? `${scene.names[run.id] ? scene.names[run.id].replaceAll('_', ' ') : 'ignored'} ${run.near.toFixed(1)}–${run.far.toFixed(1)} m` : 'nothing';
  $('rayTitle').textContent = `ray of ${ray.name}`;
  const light = steps[curved].length ? steps[curved].reduce((sum, s) => sum + s.weight, 0) : 0;
  $('rayText').textContent = kinds.map((kind, k) => `${kind === 'gt' ? 'label' : 'prediction'}: ${told(runs[k])}`).join(' · ') +
    (current.density ? ` · ${(100 * light).toFixed(0)} % stopped` : '');
  document.documentElement.dataset.ray = $('rayText').textContent;
}
function drawRay() {   // the line in the pictures
  const shown = panes(), width = stage.clientWidth / shown.length, H = stage.clientHeight, lines = [];
  if (ray && !state.sensor) {
    const m = clipMatrix(orbitCamera(width, H)), cells = walk(ray);
    const points = cells.length ? [0, cells.at(-1).far].map(t => ray.origin.map((v, i) => v + t * ray.direction[i])) : [];
    const ends = points.map(p => [0, 1, 3].map(r => m[r] * p[0] + m[r + 4] * p[1] + m[r + 8] * p[2] + m[r + 12]));
    if (ends.length && ends.every(e => e[2] > 0.3)) shown.forEach((_, k) => {
      const [[x1, y1], [x2, y2]] = ends.map(([x, y, w]) => [k * width + (x / w + 1) / 2 * width, (1 - y / w) / 2 * H]);
      lines.push(`<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="#cc3311" stroke-width="2"/><circle cx="${x1}" cy="${y1}" r="4" fill="#cc3311"/>`);
    });
  }
  $('overlay').innerHTML = lines.join('');
}
function pick(x, y) {   // a point of the stage: the ray of the camera that one is in, or that sees the voxel best
  if (!current) return;
  const shown = panes(), width = stage.clientWidth / shown.length, H = stage.clientHeight, k = Math.min(Math.floor(x / width), shown.length - 1);
  const sensor = state.sensor && sensorCamera(), camera = sensor || orbitCamera(width, H);
  const scale = Math.min(width / camera.width, H / camera.height);
  const u = (x - k * width - (width - camera.width * scale) / 2) / scale, v = (y - (H - camera.height * scale) / 2) / scale;
  const through = cameraRay(camera, u, v);
  if (sensor) ray = {...through, name: `${state.sensor}, pixel ${u.toFixed(0)}, ${v.toFixed(0)}`};
  else {
    const volume = current[shown[k] === 'error' ? 'pred' : shown[k]] || current.gt;
    const hit = walk(through).find(({cell}) => volume[cell] !== scene.free && cell % Z < state.cut && !state.hidden.has(volume[cell]));
    ray = hit ? rayTo(through.origin.map((o, i) => o + (hit.near + hit.far) / 2 * through.direction[i])) : null;
  }
  showRay(); drawRay();
}
function rayTo(point) {   // from the camera whose image shows a point nearest to its middle, else from above the origin
  let best = null, least = Infinity;
  for (const camera of scene.frames[state.frame].cameras) {
    const [x, y, z] = camera.ref2cam.map(row => dot(row, point) + row[3]), [fx, fy, cx, cy] = camera.K;
    const u = fx * x / z + cx, v = fy * y / z + cy, [w, h] = camera.size;
    if (z > 0 && u > 0 && v > 0 && u < w && v < h && Math.abs(u / w - 0.5) < least) { least = Math.abs(u / w - 0.5); best = camera; }
  }
  const origin = best ? invert(best.ref2cam).position : [0, 0, scene.frame === 'ego' ? 1.8 : 0];
  return {origin, direction: unit(point.map((v, i) => v - origin[i])), name: best ? best.name : 'the vehicle'};
}
