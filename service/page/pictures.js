// Pictures of the service in <img>, which cannot send a key by itself.

import { fetched } from "./api.js";
import { isHeld } from "./key.js";

const KEPT = 500; // pictures in memory
const kept = new Map(); // address -> promise of an object URL, the latest last
const near = new IntersectionObserver(arrived, { rootMargin: "600px" });

/** Show the picture at an address; a failure is the image's `error`, as always. */
export function show(image, address) {
  image.dataset.source = address;
  near.unobserve(image);
  if (!isHeld() || !address.startsWith("http")) image.src = address;
  else if (image.loading === "lazy") near.observe(image);
  else load(image);
}

function arrived(entries) {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    near.unobserve(target);
    load(target);
  }
}

async function load(image) {
  const { source } = image.dataset;
  try {
    const url = await objectUrl(source);
    if (image.dataset.source === source) image.src = url;
  } catch {
    if (image.dataset.source === source) image.dispatchEvent(new Event("error"));
  }
}

function objectUrl(address) {
  const url = kept.get(address) ?? fetched(address).then((blob) => URL.createObjectURL(blob));
  url.catch(() => kept.delete(address));
  kept.delete(address);
  kept.set(address, url);
  if (kept.size > KEPT) forget(kept.keys().next().value);
  return url;
}

function forget(address) {
  kept.get(address).then((url) => URL.revokeObjectURL(url), () => {});
  kept.delete(address);
}
