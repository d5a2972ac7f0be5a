// The service's HTTP interface, and its problems as sentences.

import { events } from "./events.js";
import * as key from "./key.js";

export class Problem extends Error {
  constructor({ detail, title, status = 0, code = "unknown" }) {
    super(sentence(detail || title || "Something went wrong"));
    this.status = status;
    this.code = code;
  }
}

/** "there is no item 'x'" -> "There is no item 'x'." */
export function sentence(text) {
  const whole = text.trim();
  return whole.charAt(0).toUpperCase() + whole.slice(1) + (/[.!?]$/.test(whole) ? "" : ".");
}

// What stands between browser and service answers without problem details.
const WITHOUT_DETAILS = {
  413: "that is too large to be sent at once: send fewer or smaller pictures",
  429: "the service is busy: try again in a moment",
  502: "the service does not answer: check that it is running, then try again",
  503: "the service is not ready yet: try again in a moment",
  504: "the service took too long to answer: try again in a moment",
};

const url = (path) => new URL(path, document.baseURI).href;
const collectionPath = (name) => `v1/collections/${encodeURIComponent(name)}`;
const itemPath = (collection, id) => `${collectionPath(collection)}/items/${encodeURIComponent(id)}`;

/** What the service answers; where it asks for a key, it is asked again with what the visitor gives. */
async function reach(path, options) {
  const response = await sent(path, options);
  if (response.status !== 401) return response;
  const { detail = "" } = await response.clone().json().catch(() => ({}));
  return (await key.ask(sentence(detail))) ? reach(path, options) : response;
}

async function sent(path, options = {}) {
  try {
    return await fetch(url(path), { ...options, headers: { ...options.headers, ...key.header() } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const detail = "The service does not answer. Check that it is running, then try again.";
    throw new Problem({ code: "unreachable", detail });
  }
}

async function call(path, options) {
  const response = await answered(path, options);
  return isJson(response) ? response.json() : {};
}

const isJson = (response) => response.headers.get("content-type")?.includes("json");

/** An answer that is none of a problem. */
async function answered(path, options) {
  const response = await reach(path, options);
  if (response.ok) return response;
  const body = isJson(response) ? await response.json() : {};
  const { status } = response;
  const title = `the service answered with status ${status}`;
  throw new Problem({ title, detail: WITHOUT_DETAILS[status], ...body, status });
}

function form(fields) {
  const body = new FormData();
  for (const [name, value] of fields) {
    if (value instanceof File) body.append(name, value, value.name || "picture");
    else if (value !== undefined) body.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  return { method: "POST", body };
}

export const collections = async () => (await call("v1/collections")).collections;
export const collection = (name) => call(collectionPath(name));
export const item = (name, id, signal) => call(itemPath(name, id), { signal });
export const thumbnail = (name, id) => url(`${itemPath(name, id)}/thumbnail`);

/** A page of items: `{items, next}`. */
export function items(name, { limit, after, signal }) {
  const fields = new URLSearchParams({ limit, ...(after && { after }) });
  return call(`${collectionPath(name)}/items?${fields}`, { signal });
}

/** Neighbours of `{item}` or of `{files}`; `options` are k, offset, space and region. */
export const search = (name, query, options, signal) => ask(name, "search", query, options, signal);

/** Why `options.neighbour` was found by `{item}` or by the one of `{files}`. */
export const explain = (name, query, options, signal) => ask(name, "explain", query, options, signal);

function ask(name, what, { item: id, files }, options, signal) {
  const path = `${collectionPath(name)}/${what}`;
  if (files) {
    const fields = [...files.map((file) => ["file", file]), ...Object.entries(options)];
    return call(path, { ...form(fields), signal });
  }
  const headers = { "content-type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify({ item: id, ...options }), signal });
}

/** Index pictures: an outcome per file. */
export const add = async (name, files, signal) =>
  (await call(`${collectionPath(name)}/items`, { ...form(files.map((file) => ["files", file])), signal })).items;

/** Index an archive: the job that does it. */
export const addArchive = (name, file, signal) =>
  call(`${collectionPath(name)}/jobs`, { ...form([["archive", file]]), signal });

export const jobs = async () => (await call("v1/jobs")).jobs;
export const job = (id) => call(`v1/jobs/${id}`);
export const jobErrors = async (id) => (await call(`v1/jobs/${id}/errors`)).errors;
export const cancelJob = (id) => call(`v1/jobs/${id}`, { method: "DELETE" });

/** What happens to a job, until it has ended or the connection has. */
export async function* jobEvents(id) {
  yield* events(await answered(`v1/jobs/${id}/events`));
}

/** The bytes at an address of the service. */
export const fetched = async (address) => (await answered(address)).blob();

/** What the service says of itself; a service that is not ready says so in the same shape. */
export async function ready() {
  const response = await reach("health/ready");
  const body = await response.json().catch(() => ({}));
  return { ready: response.ok, notices: [], ...body };
}
