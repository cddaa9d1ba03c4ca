// The map as a picture, with its legend.

import { themed } from "./colors.js";
import { save } from "./dom.js";
import { drawLabels } from "./labels.js";
import { sheet } from "./picture.js";
import { drawPoints, fitted } from "./scatter.js";

const [WIDTH, HEIGHT, LINE] = [1000, 640, 22];

export function mapPicture(shown) {
  const { entries, points } = shown;
  const height = HEIGHT + LINE * entries.length + 24;
  const context = sheet(WIDTH, height);
  const places = fitted(points, WIDTH, HEIGHT);
  drawPoints(context, places, shown);
  drawLabels(context, entries, places, [WIDTH, HEIGHT]);
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "middle";
  entries.forEach(({ color, name, about = "", members }, index) => {
    const y = HEIGHT + LINE * (index + 0.5);
    context.fillStyle = color;
    context.fillRect(24, y - 6, 12, 12);
    context.fillStyle = themed("--ink");
    context.fillText(`${name}  ${members?.length ?? ""}  ${about}`, 46, y, WIDTH - 70);
  });
  context.canvas.toBlob((blob) => save("map.png", blob));
}
