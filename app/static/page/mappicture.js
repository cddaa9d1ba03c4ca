// The map as a picture, with its legend.

import { themed } from "./colors.js";
import { save, short } from "./dom.js";
import { sheet } from "./picture.js";
import { drawPoints, fitted } from "./scatter.js";

const [WIDTH, HEIGHT, LINE] = [1000, 640, 22];

export function mapPicture(shown) {
  const { entries, points, texts } = shown;
  const height = HEIGHT + LINE * entries.length + 24;
  const context = sheet(WIDTH, height);
  drawPoints(context, fitted(points, WIDTH, HEIGHT), shown);
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "middle";
  entries.forEach(({ color, name, size, central }, index) => {
    const y = HEIGHT + LINE * (index + 0.5);
    context.fillStyle = color;
    context.fillRect(24, y - 6, 12, 12);
    context.fillStyle = themed("--ink");
    const about = central === undefined ? "" : `  ${short(texts[central], 80)}`;
    context.fillText(`${name}  ${size ?? ""}${about}`, 46, y, WIDTH - 70);
  });
  context.canvas.toBlob((blob) => save("map.png", blob));
}
