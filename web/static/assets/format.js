// Numbers as people read them.

const number = (digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const formats = [number(0), number(1), number(2)];
const NOTHING = "–";

/** Three digits that count: 0.25, 3.1, 42, 1,204. */
export function decimal(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return NOTHING;
  const size = Math.abs(value);
  return formats[size === 0 || size >= 20 ? 0 : size >= 1 ? 1 : 2].format(value);
}

export function count(value) {
  return value === null || value === undefined ? NOTHING : formats[0].format(value);
}

export function percent(share) {
  return share === null || share === undefined ? NOTHING : `${formats[share > 0.99 && share < 1 ? 1 : 0].format(share * 100)} %`;
}

/** 1024 to a step, as memory is counted. */
export function bytes(value) {
  if (value === null || value === undefined) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${decimal(value / 1024 ** step)} ${units[step]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return NOTHING;
  if (value < 0.9995) return `${formats[0].format(value * 1000)} ms`;
  if (value < 60) return `${formats[value < 10 ? 1 : 0].format(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
}
