// Batch-indexing jobs of the service, whoever started them, as they go on.

import * as api from "./api.js";
import { announce } from "./dom.js";
import { Task } from "./tasks.js";

const LOOK_AGAIN_MS = 5000;
const FOLLOW_AGAIN_MS = 2000;
const MAX_STREAMS = 3; // A browser opens six connections to a host in all.
const tasks = new Map(); // job id -> Task, unfinished or finished while the page was open
const streams = new Set(); // ids of jobs that are followed
let onGrowth = () => {};

/** Watch jobs for as long as the page is open; `onGrowth(over)` hears that they index, or are over. */
export async function start(growth) {
  onGrowth = growth;
  await look();
  setInterval(() => document.visibilityState === "visible" && look(), LOOK_AGAIN_MS);
}

async function look() {
  try {
    const running = (await api.jobs()).filter(isRunning);
    running.forEach(watch);
    if (running.length) onGrowth(false);
  } catch {
    // Whatever is on the page says that the service does not answer.
  }
}

const isRunning = (job) => ["queued", "running"].includes(job.state);

/** Show a job, and follow it to its end. */
export function watch(job) {
  update(job);
  if (streams.has(job.id) || !isRunning(job) || streams.size >= MAX_STREAMS) return;
  follow(job.id);
}

/** Follow a job through breaks of the connection, until it has ended or is not to be had any more. */
async function follow(id) {
  streams.add(id);
  let over = false;
  while (!over) {
    try {
      for await (const { event, data } of api.jobEvents(id)) {
        over = event === "end";
        if (over) end(data);
        else update(data);
      }
    } catch (error) {
      over = [401, 403, 404].includes(error.status);
    }
    if (!over) await new Promise((resume) => setTimeout(resume, FOLLOW_AGAIN_MS));
  }
  streams.delete(id);
}

function end(job) {
  update(job);
  announce(`Indexing ${job.state}: ${job.done} pictures, ${job.failed} failed`);
  onGrowth(true);
}

function titleOf(job) {
  const { name, folder, manifest, find_duplicates: duplicates } = job.source ?? {};
  if (duplicates) return `Looking for duplicates in ${job.collection}`;
  const source = name ?? (folder ?? manifest ?? "pictures").split("/").at(-1);
  return `Indexing ${source} into ${job.collection}`;
}

function update(job) {
  if (!tasks.has(job.id)) {
    tasks.set(job.id, new Task(titleOf(job), {
      onCancel: () => api.cancelJob(job.id).then(update),
      onErrors: () => api.jobErrors(job.id),
    }));
  }
  tasks.get(job.id).update({ ...job, finished: job.done + job.failed, detail: job.problem?.detail });
}
