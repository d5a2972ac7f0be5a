// Pictures from this computer into the collection, a few per request; archives become jobs.

import * as api from "./api.js";
import { announce, plural } from "./dom.js";
import * as jobs from "./jobs.js";
import { Task } from "./tasks.js";

const ARCHIVE = /\.(zip|tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz))$/i;
const PER_REQUEST = { files: 8, bytes: 24 * 1024 * 1024 };

/** Add files to a collection; `onChange()` hears when it has grown. */
export async function add(collection, files, onChange) {
  const archives = files.filter((file) => ARCHIVE.test(file.name));
  const pictures = files.filter((file) => !ARCHIVE.test(file.name));
  await Promise.all([
    ...archives.map((file) => addArchive(collection, file)),
    ...(pictures.length ? [addPictures(collection, pictures, onChange)] : []),
  ]);
}

async function addArchive(collection, file) {
  const stopping = new AbortController();
  const task = new Task(`Sending ${file.name}`, { onCancel: () => stopping.abort(), onErrors: () => [] });
  task.update({ total: null, finished: 0, failed: 0, state: "queued" });
  try {
    const job = await api.addArchive(collection, file, stopping.signal);
    task.element.remove();
    jobs.watch(job);
  } catch (error) {
    task.update({ total: null, finished: 0, failed: 0, ...stopped(error) });
  }
}

async function addPictures(collection, files, onChange) {
  const stopping = new AbortController();
  const errors = [];
  const progress = { total: files.length, finished: 0, failed: 0, unchanged: 0, state: "running" };
  const hears = { onCancel: () => stopping.abort(), onErrors: () => errors };
  const task = new Task(`Adding ${plural(files.length, "picture")} to ${collection}`, hears);
  const began = performance.now();
  task.update(progress);
  try {
    for (const portion of portions(files)) {
      const outcomes = await api.add(collection, portion, stopping.signal);
      const failed = outcomes.filter(({ status }) => status === "failed");
      errors.push(...failed.map(({ name, problem }) => ({ reference: name, detail: problem.detail })));
      progress.finished += portion.length;
      progress.failed = errors.length;
      progress.unchanged += outcomes.filter(({ status }) => status === "unchanged").length;
      progress.rate = progress.finished / ((performance.now() - began) / 1000);
      progress.eta_s = (progress.total - progress.finished) / progress.rate;
      task.update(progress);
    }
    Object.assign(progress, { state: "done" });
  } catch (error) {
    Object.assign(progress, stopped(error));
  }
  task.update(progress);
  announce(`${plural(progress.finished - progress.failed, "picture")} added, ${progress.failed} failed`);
  if (progress.finished > progress.failed) await onChange();
}

const stopped = (error) =>
  error.name === "AbortError" ? { state: "cancelled" } : { state: "failed", detail: error.message };

/** Files in portions that a request may carry. */
export function* portions(files) {
  let portion = [];
  let bytes = 0;
  for (const file of files) {
    if (portion.length && (portion.length === PER_REQUEST.files || bytes + file.size > PER_REQUEST.bytes)) {
      yield portion;
      [portion, bytes] = [[], 0];
    }
    portion.push(file);
    bytes += file.size;
  }
  if (portion.length) yield portion;
}
