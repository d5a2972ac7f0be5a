// The page: the address says what is shown, and everything that happens changes the address.

import { add } from "./adding.js";
import { format, isSearch, parse } from "./address.js";
import * as api from "./api.js";
import { $, h, plural } from "./dom.js";
import * as gallery from "./gallery.js";
import * as incoming from "./incoming.js";
import * as jobs from "./jobs.js";
import * as key from "./key.js";
import * as notices from "./notices.js";
import * as query from "./query.js";
import * as ranking from "./ranking.js";
import * as results from "./results.js";
import * as spaces from "./spaces.js";
import * as uploads from "./uploads.js";
import * as why from "./why.js";

let collections = [];
let collection; // the one in view
let shownQuery = ""; // collection and query in view, without space and region

const address = () => parse(location.hash);

/** Show another address; `replace` leaves no step for the back button. */
function go(change, { replace = false } = {}) {
  const next = collection && format({ ...address(), collection: collection.name, ...change });
  if (!next || next === location.hash) return;
  if (replace) history.replaceState(null, "", next);
  else history.pushState(null, "", next);
  render();
}

async function refresh() {
  collections = await api.collections();
  const select = $("collection");
  const names = collections.map(({ name }) => name);
  if ([...select.options].map(({ value }) => value).join() === names.join()) return;
  select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  select.value = collection?.name ?? select.value;
}

async function render() {
  const at = address();
  const named = (wanted) => collections.find(({ name }) => name === wanted);
  collection = at.collection ? named(at.collection) : (named("default") ?? collections[0]);
  if (!collection) {
    const missing = at.collection ? `there is no collection '${at.collection}'` : "there is no collection yet";
    refuse(new api.Problem({ code: "collection-unknown", detail: missing }));
    return;
  }
  $("collection").value = collection.name;
  showCount();
  notices.of(collection, collections);
  const home = format({ collection: collection.name, space: at.space });
  $("home").href = home;
  $("back").href = home;
  showView(isSearch(at) ? "search-view" : "gallery-view");
  document.title = isSearch(at) ? `Neighbours · ${collection.name} · pool5` : `${collection.name} · pool5`;
  if (isSearch(at)) await renderSearch(at);
  else await renderGallery(at);
}

async function renderGallery(at) {
  results.clear();
  shownQuery = "";
  await gallery.show(collection, at.space);
}

async function renderSearch(at) {
  const { name } = collection;
  const pictures = at.upload && uploads.recall(at.upload);
  const identity = format({ collection: name, item: at.item, upload: at.upload });
  const isNew = identity !== shownQuery;
  const space = spaces.chosen(collection, at.space);
  shownQuery = identity;
  spaces.show(collection, space, (other) => go({ space: other }));
  ranking.show(at, go);
  if (isNew) {
    results.clear();
    scrollTo(0, 0);
    $("results-title").focus({ preventScroll: true });
  }
  if (at.upload && !pictures) {
    $("stage").hidden = $("positives").hidden = $("region-tools").hidden = true;
    $("facts").replaceChildren();
    const detail = "this tab no longer holds that picture: drop or choose it again";
    results.refuse(new api.Problem({ code: "upload-forgotten", detail }));
    return;
  }
  if (pictures) query.showUploads(pictures, (index) => without(pictures, index));
  else showItem(name, at.item, isNew);
  query.setRegion(at.region);
  const searched = pictures ? { files: pictures.map(({ file }) => file) } : { item: at.item };
  const { region, rerank, expand } = at;
  const options = { space, region, ...ranking.options(at) };
  await results.show(name, searched, options, { space, rerank, expand });
}

async function showItem(name, id, isNew) {
  query.showItem(name, id);
  if (!isNew) return;
  $("facts").replaceChildren();
  try {
    const item = await api.item(name, id);
    if (address().item === id) query.showFacts(item);
  } catch {
    // The search for the same item says what is wrong.
  }
}

const search = (files) => go({ item: undefined, region: undefined, upload: uploads.keep(files) });

const without = (pictures, index) => search(pictures.toSpliced(index, 1).map(({ file }) => file));

const showCount = () => { $("count").textContent = plural(collection.items, "picture"); };

/** Pictures were indexed: count them, and show them where nobody has gone far into the gallery. */
async function grown(over) {
  await refresh();
  collection = collections.find(({ name }) => name === collection?.name) ?? collection;
  if (!collection) return;
  showCount();
  if (!isSearch(address()) && (over || gallery.isShort())) await gallery.show(collection, address().space);
}

/** Do something once the collection is known, however early the visitor asks for it. */
const once = (begun, action) => async (files) => {
  await begun;
  if (collection) action(files);
};

function showView(id) {
  for (const view of ["gallery-view", "search-view"]) $(view).hidden = view !== id;
}

function refuse(problem) {
  showView("gallery-view");
  gallery.refuse(problem, begin);
}

async function begin() {
  try {
    await refresh();
  } catch (error) {
    refuse(error);
    return;
  }
  await render();
}

function start() {
  key.start();
  const begun = begin();
  gallery.start();
  results.start();
  why.start();
  query.start((region, keyboard) => go({ region }, { replace: keyboard || Boolean(region && address().region) }));
  incoming.start({
    onSearch: once(begun, search),
    onAdd: once(begun, (files) => add(collection.name, files, () => grown(true))),
    mayBeSearched: () => collection?.items > 0,
  });
  $("collection").addEventListener("change", (event) => {
    history.pushState(null, "", format({ collection: event.target.value }));
    render();
  });
  $("skip").addEventListener("click", () => {
    const list = isSearch(address()) ? $("neighbours") : $("gallery");
    (list.querySelector('a[tabindex="0"]') ?? $("content")).focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || $("why").open || $("key").open) return;
    $("drop").hidden = true;
    if (isSearch(address()) && !query.clearRegion()) go({ item: undefined, upload: undefined, region: undefined });
  });
  addEventListener("popstate", () => begun.then(render));
  notices.start();
  jobs.start(grown);
}

start();
