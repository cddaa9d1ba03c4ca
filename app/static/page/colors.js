// Colours for numbers and for groups, fine on light and on dark ground.

// viridis (van der Walt and Smith 2015): even steps look even, also to the colour-blind and in grey.
const VIRIDIS = [
  [68, 1, 84],
  [71, 45, 123],
  [59, 82, 139],
  [44, 114, 142],
  [33, 145, 140],
  [40, 174, 128],
  [94, 201, 98],
  [173, 220, 48],
  [253, 231, 37],
];

// share 0..1 to [r, g, b]
export function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1);
  const index = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[index].map((from, c) => Math.round(from + (at - index) * (VIRIDIS[index + 1][c] - from)));
}

export const css = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

// Black or white, whichever is easier to read on this colour; one of them always has a contrast of 4.5.
export function inkOn(color) {
  const [r, g, b] = color.map((value) => {
    const c = value / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

// Distinct in both themes and to the colour-blind (after Okabe and Ito 2008); the last one is for the rest.
export const GROUPS = [
  "#0d7fc2",
  "#e08a00",
  "#0a9e78",
  "#c861a0",
  "#8a6fd1",
  "#d9541e",
  "#3fb5d8",
  "#a3a500",
  "#a8653a",
];
export const REST = "#8a9099";

// Of CSS variables that the theme sets.
export const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
