// Pictures that this tab searches by. They leave it only as queries; a reload forgets them.

const KEPT = 24;
const queries = new Map(); // key -> [{file, preview}], the oldest first
let last = 0;

/** Keep pictures for a search; the key goes into the address. */
export function keep(files) {
  last += 1;
  const key = String(last);
  queries.set(key, files.map((file) => ({ file, preview: URL.createObjectURL(file) })));
  for (const old of [...queries.keys()].slice(0, -KEPT)) {
    for (const { preview } of queries.get(old)) URL.revokeObjectURL(preview);
    queries.delete(old);
  }
  return key;
}

/** The pictures under a key, or undefined once they are forgotten. */
export const recall = (key) => queries.get(key);
