// The heat map as a picture: labels, cells, values and the scale.

import { inkOn, themed, viridis } from "./colors.js";
import { make, save, short } from "./dom.js";
import { t } from "./language.js";
import { paintPixels } from "./raster.js";
import { bar, score, share } from "./scale.js";

const SHARP = 2; // pixels of the picture for each of the page
const LABELLED = 60; // texts; more have no room for labels
const VALUED = 30;
const FONT = "system-ui, sans-serif";

// What is drawn on, of the page's ground.
export function sheet(width, height) {
  const canvas = make("canvas", { width: width * SHARP, height: height * SHARP });
  const context = canvas.getContext("2d");
  context.scale(SHARP, SHARP);
  context.fillStyle = themed("--ground");
  context.fillRect(0, 0, width, height);
  return context;
}

export function heatMapPicture(shown) {
  const { texts, order, scale, kind } = shown;
  const n = order.length;
  const labelled = n <= LABELLED;
  const cell = n <= VALUED ? 44 : labelled ? 18 : Math.max(2, Math.floor(1600 / n));
  const [left, top, margin] = [labelled ? 320 : 24, labelled ? 32 : 24, 24];
  const [width, height] = [left + n * cell + margin, top + n * cell + 72];
  const context = sheet(width, height);

  const cells = make("canvas", { width: n, height: n });
  paintPixels(cells, shown);
  context.imageSmoothingEnabled = false;
  context.drawImage(cells, left, top, n * cell, n * cell);

  context.textBaseline = "middle";
  context.fillStyle = themed("--ink");
  if (labelled) {
    order.forEach((index, place) => {
      const middle = (place + 0.5) * cell;
      context.font = `13px ${FONT}`;
      context.textAlign = "left";
      context.fillText(`${index + 1}  ${short(texts[index], 38)}`, 16, top + middle, left - 28);
      context.textAlign = "center";
      context.fillText(String(index + 1), left + middle, top - 14, cell);
    });
  }
  if (n <= VALUED) {
    context.font = `12px ${FONT}`;
    for (let r = 0; r < n; r++)
      for (let c = 0; c < n; c++) {
        const value = score(shown, r, c);
        context.fillStyle = r === c ? themed("--muted") : inkOn(viridis(share(scale, value)));
        context.fillText(value.toFixed(2), left + (c + 0.5) * cell, top + (r + 0.5) * cell);
      }
  }

  const length = Math.min(240, n * cell);
  bar(context, left, top + n * cell + 18, length, 10);
  context.fillStyle = themed("--ink");
  context.font = `12px ${FONT}`;
  context.textAlign = "left";
  context.fillText(scale.low.toFixed(3), left, top + n * cell + 42);
  context.fillText(t("legend.title", { score: t(`score.${kind}`) }), left, top + n * cell + 60, width - left);
  context.textAlign = "right";
  context.fillText(scale.high.toFixed(3), left + length, top + n * cell + 42);
  context.canvas.toBlob((blob) => save("similarity.png", blob));
}
