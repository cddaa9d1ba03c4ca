// What part of a plot is seen: the wheel, a pinch, keys and buttons zoom, a drag moves, or draws a frame.

const [MOST, STEP, STILL] = [40, 1.5, 4]; // times; times at a press of a key; pixels that a click may move

// `changed()` is called when another part is seen, `framed(from, to)` while a frame is drawn, with `done` at its end.
// `framing()` tells whether a drag draws a frame, as it does with the Shift key.
export function zoom(surface, { changed, framed, framing }) {
  const pointers = new Map(); // that are down: id to [x, y]
  let view = { scale: 1, x: 0, y: 0 };
  let drag = null; // {from, frame}: a pointer that has been moved

  function set(scale, x, y) {
    const kept = (offset, size) => Math.min(0, Math.max(size * (1 - scale), offset));
    view = { scale, x: kept(x, surface.clientWidth), y: kept(y, surface.clientHeight) };
    surface.classList.toggle("zoomed", scale > 1);
    changed();
  }

  function by(times, [x, y] = [surface.clientWidth / 2, surface.clientHeight / 2]) {
    const scale = Math.min(MOST, Math.max(1, view.scale * times));
    const share = scale / view.scale;
    set(scale, x - (x - view.x) * share, y - (y - view.y) * share);
  }

  const at = ({ clientX, clientY }) => {
    const { left, top } = surface.getBoundingClientRect();
    return [clientX - left, clientY - top];
  };
  const apart = ([[a, b], [c, d]]) => Math.hypot(a - c, b - d);
  const middle = ([[a, b], [c, d]]) => [(a + c) / 2, (b + d) / 2];

  surface.addEventListener(
    "wheel",
    (event) => {
      if (view.scale === 1 && event.deltaY > 0) return; // the page scrolls on
      event.preventDefault();
      by(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : event.ctrlKey ? 0.01 : 0.002)), at(event));
    },
    { passive: false },
  );
  surface.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, at(event));
    drag = pointers.size > 1 ? null : { from: at(event), frame: event.shiftKey || framing() };
  });
  surface.addEventListener("pointermove", (event) => {
    if (!event.buttons) pointers.delete(event.pointerId); // let go of outside
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    if (!surface.hasPointerCapture(event.pointerId)) {
      if (apart([now, before]) < STILL) return;
      surface.setPointerCapture(event.pointerId);
    }
    if (pointers.size === 2) {
      const old = [...pointers.values()];
      pointers.set(event.pointerId, now);
      const moved = [...pointers.values()];
      const [[x, y], [nx, ny]] = [middle(old), middle(moved)];
      view = { ...view, x: view.x + nx - x, y: view.y + ny - y };
      return by(apart(moved) / Math.max(1, apart(old)), [nx, ny]);
    }
    pointers.set(event.pointerId, now);
    if (drag?.frame) framed(drag.from, now);
    else set(view.scale, view.x + now[0] - before[0], view.y + now[1] - before[1]);
  });
  const end = (event) => {
    const was = pointers.get(event.pointerId);
    pointers.delete(event.pointerId);
    if (was && drag?.frame && surface.hasPointerCapture(event.pointerId)) framed(drag.from, at(event), event.type === "pointerup");
    drag = null;
  };
  for (const type of ["pointerup", "pointercancel"]) surface.addEventListener(type, end);

  return {
    in: () => by(STEP),
    out: () => by(1 / STEP),
    reset: () => set(1, 0, 0),
    seen: ([x, y]) => [x * view.scale + view.x, y * view.scale + view.y],
    // Moves until this place of the whole plot is seen.
    show([x, y]) {
      const { scale } = view;
      const [sx, sy] = [x * scale + view.x, y * scale + view.y];
      const [width, height] = [surface.clientWidth, surface.clientHeight];
      if (sx < 0 || sy < 0 || sx > width || sy > height) set(scale, width / 2 - x * scale, height / 2 - y * scale);
    },
  };
}
