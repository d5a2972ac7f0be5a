// What is shown, as the part of the address behind '#': links, reload and the back button work.
//
// #/shoes                                     the gallery of collection `shoes`
// #/shoes?item=4f0c&space=low&region=0,0,1,.5 a search by an item, or by a part of it
// #/shoes?upload=2&space=low:0.3,high:0.7     a search by pictures that this tab holds
// #/shoes?item=4f0c&rerank=diffusion&expand=1 ranked anew, after asking again with what was found

/** @typedef {[number, number, number, number]} Region x0, y0, x1, y1 as shares of the picture */
/** @typedef {string | Record<string, number>} Space a space, or weights over spaces */
/** @typedef {{collection?: string, item?: string, upload?: string, space?: Space, region?: Region, rerank?: string, expand?: boolean}} Address */

/** @returns {Address} */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const fields = new URLSearchParams(query);
  const text = (name) => fields.get(name) || undefined;
  return {
    collection: unescaped(path) || undefined,
    item: text("item"),
    upload: text("upload"),
    space: parseSpace(text("space")),
    region: parseRegion(text("region")),
    rerank: text("rerank"),
    expand: text("expand") ? true : undefined,
  };
}

/** The address as a link's target. */
export function format({ collection = "", item, upload, space, region, rerank, expand }) {
  const fields = new URLSearchParams();
  if (item) fields.set("item", item);
  if (upload) fields.set("upload", upload);
  if (space) fields.set("space", typeof space === "string" ? space : formatMix(space));
  if (region) fields.set("region", region.map((share) => +share.toFixed(4)).join(","));
  if (rerank) fields.set("rerank", rerank);
  if (expand) fields.set("expand", "1");
  const query = fields.toString().replaceAll("%2C", ",").replaceAll("%3A", ":");
  return `#/${encodeURIComponent(collection)}${query && `?${query}`}`;
}

export const isSearch = (address) => Boolean(address.item || address.upload);

function unescaped(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function formatMix(weights) {
  return Object.entries(weights).map(([name, weight]) => `${name}:${+weight.toFixed(2)}`).join(",");
}

function parseSpace(text) {
  if (!text?.includes(":")) return text;
  const pairs = text.split(",").map((pair) => pair.split(":"));
  return Object.fromEntries(pairs.map(([name, weight]) => [name, Math.max(0, Number(weight) || 0)]));
}

function parseRegion(text) {
  const shares = text?.split(",").map(Number);
  const valid = shares?.length === 4 && shares.every((share) => share >= 0 && share <= 1);
  return valid && shares[0] < shares[2] && shares[1] < shares[3] ? shares : undefined;
}
