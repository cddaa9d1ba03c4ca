// The map as a picture, with its legend.

import { themed } from "./colors.js";
import { make, save, short } from "./dom.js";
import { drawPoints, fitted } from "./scatter.js";

const SHARP = 2;
const [WIDTH, HEIGHT, LINE] = [1000, 640, 22];

export function mapPicture(shown) {
  const { entries, points, texts } = shown;
  const height = HEIGHT + LINE * entries.length + 24;
  const canvas = make("canvas", { width: WIDTH * SHARP, height: height * SHARP });
  const context = canvas.getContext("2d");
  context.scale(SHARP, SHARP);
  context.fillStyle = themed("--ground");
  context.fillRect(0, 0, WIDTH, height);
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
  canvas.toBlob((blob) => save("map.png", blob), "image/png");
}
