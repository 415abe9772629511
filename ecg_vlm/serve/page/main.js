// The page: what is chosen, dropped, pasted or photographed becomes an item of the session, and is asked about at once.

import { getJson, postForBlob, postJson, setToken, takeTokenFromAddress } from "/page/api.js";
import { openEditor } from "/page/correction.js";
import { button, byId, element, refill } from "/page/dom.js";
import { answersOf, howOf, measurementsOf, scoresOf, warningsOf } from "/page/result.js";
import { askModel, explain, imageOf, newItem, noteQuestions, resultOf } from "/page/session.js";
import { currentLanguage, setLanguage, setMessages, setStatementNames, t, translate } from "/page/text.js";

const PAGED = /\.(pdf|tiff?|dcm|gif)$/i; // files that may have several pages
const MOST_QUESTIONS = 20; // of one request
const ENDINGS = { pdf: "pdf", json: "json", wfdb: "zip", fhir: "fhir.json" };

const state = { items: [], item: null, statements: [], view: "read", closeEditor: null };
const isNarrow = matchMedia("(max-width: 40rem)");
let connected;
const whenConnected = new Promise((resolve) => (connected = resolve)); // files that come earlier wait for the models
let queue = Promise.resolve(); // one picture after the other

takeTokenFromAddress();
setLanguage(currentLanguage());
listen();
drawChips();
connect();

/** Load the models and statements; where a token is needed, ask for it. */
async function connect() {
  try {
    const paths = ["/v1/models", "/v1/statements", "/page/messages_de.json"];
    const [models, { statements }, messages] = await Promise.all(paths.map(getJson));
    setMessages(messages);
    state.statements = statements;
    setStatementNames(statements);
    drawModels(models.data.map((model) => model.id));
    connected();
  } catch (error) {
    if (error.status === 401) byId("token-dialog").showModal();
    else showError(error);
  }
}

function drawModels(names) {
  const options = (list) => list.map(([value, text]) => element("option", { value }, text));
  byId("model").replaceChildren(...options(names.map((name) => [name, name])));
  byId("second").replaceChildren(...options([["", t("noSecond")], ...names.map((name) => [name, name])]));
  for (const id of ["model-label", "second-label"]) byId(id).hidden = names.length < 2;
}

const models = () => [...new Set([byId("model").value, byId("second").value])].filter(Boolean);
const runsOf = (item) =>
  models()
    .map((name) => item.runs.get(name))
    .filter(Boolean);
const resultNow = (item) => runsOf(item).find((run) => run.result)?.result ?? null;

// What comes in ------------------------------------------------------------------------------------------------------

function listen() {
  for (const id of ["files", "camera"])
    byId(id).addEventListener("change", ({ target }) => {
      addFiles([...target.files]);
      target.value = ""; // the same file may be chosen again
    });
  addEventListener("paste", ({ clipboardData }) => addFiles([...clipboardData.files]));
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    addFiles([...event.dataTransfer.files]);
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const question = byId("question").value.trim();
    byId("question").value = "";
    if (question) askAbout(state.item, [question]);
  });
  for (const node of document.querySelectorAll("[data-language]"))
    node.addEventListener("click", () => {
      setLanguage(node.dataset.language);
      byId("second").options[0].textContent = t("noSecond");
      closeEditor();
      drawChips();
      draw();
    });
  for (const node of document.querySelectorAll("[data-view]"))
    node.addEventListener("click", () => {
      state.view = node.dataset.view;
      drawPicture();
    });
  for (const node of document.querySelectorAll("[data-format]"))
    node.addEventListener("click", () => save(node.dataset.format));
  for (const id of ["model", "second"]) byId(id).addEventListener("change", () => askOtherModel());
  byId("add").addEventListener("click", () => byId("files").click());
  byId("clear").addEventListener("click", clearSession);
  byId("correct").addEventListener("click", correct);
  byId("page").addEventListener("click", pickOtherPage);
  byId("enlarge").addEventListener("click", enlarge);
  byId("stop").addEventListener("click", () => runsOf(state.item).forEach((run) => run.controller?.abort()));
  byId("token-dialog").addEventListener("close", () => {
    setToken(byId("token").value.trim());
    connect();
  });
}

async function addFiles(files) {
  const items = [];
  for (const file of files) items.push(...(await itemsOf(file)));
  addItems(items);
}

async function itemsOf(file) {
  const data = await dataUrl(file);
  return PAGED.test(file.name) ? pickPages(file.name, data) : [newItem(file.name, data)];
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** Show the first of new items, and ask about all of them. */
async function addItems(items) {
  if (!items.length) return;
  for (const item of items) {
    const image = item.page ? null : await decode(item.data);
    if (image) item.preview = { src: item.data, width: image.naturalWidth, height: image.naturalHeight };
  }
  await whenConnected;
  state.items.push(...items);
  select(items[0]);
  for (const item of items) askAbout(item, [t("firstQuestion")]);
}

/** The picture as this browser shows it; null where it cannot (HEIC, DICOM, a waveform). */
async function decode(src) {
  const image = new Image();
  image.src = src;
  return image.decode().then(
    () => image,
    () => null,
  );
}

/** The items of the pages that are picked of a file; a file with one page needs no picking. */
async function pickPages(name, data) {
  let pages;
  try {
    ({ pages } = await postJson("/v1/pages", { images: [{ name, data }] }));
  } catch (error) {
    showError(error);
    return [];
  }
  if (pages.length < 2) return [newItem(name, data)];
  const likely = pages.find((page) => !page.blank) ?? pages[0];
  byId("pages-list").replaceChildren(...pages.map((page) => pageChoice(page, page === likely)));
  const dialog = byId("pages-dialog");
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const choices = dialog.returnValue === "read" ? [...byId("pages-list").querySelectorAll(":checked")] : [];
  return choices.map(({ value }) => newItem(name, data, Number(value)));
}

async function pickOtherPage() {
  addItems(await pickPages(state.item.name, state.item.data));
}

function pageChoice({ number, thumbnail, blank }, isLikely) {
  const label = t("pageNumber", { n: number }) + (blank ? `, ${t("blankPage")}` : "");
  return element(
    "label",
    { class: "page-choice" },
    element("img", { src: thumbnail, alt: "" }),
    element("span", {}, element("input", { type: "checkbox", value: number, checked: isLikely }), ` ${label}`),
  );
}

// Asking -------------------------------------------------------------------------------------------------------------

/** Ask all models that are shown, behind what is asked already. */
function askAbout(item, questions) {
  item.questions.push(...questions);
  for (const name of models()) enqueue(item, name, questions);
}

function enqueue(item, name, questions) {
  for (let i = 0; i < questions.length; i += MOST_QUESTIONS) {
    const request = noteQuestions(item, name, questions.slice(i, i + MOST_QUESTIONS));
    const isWanted = () => state.items.includes(item) && item.runs.get(name) === request.run;
    queue = queue.then(() => isWanted() && askModel(item, request, (event, run) => changed(item, run, event)));
  }
  draw();
}

/** All that was asked, again: with a correction, or the picture as it is. */
function askAgain(item) {
  item.runs.forEach((run) => run.controller?.abort());
  item.runs.clear();
  state.view = "read";
  for (const name of models()) enqueue(item, name, item.questions);
}

function askOtherModel() {
  draw();
  for (const item of state.items)
    for (const name of models()) if (!item.runs.has(name)) enqueue(item, name, item.questions);
}

function changed(item, run, event) {
  const { result } = run;
  if (item.runs.get(run.model) !== run) return; // it was asked again since
  if (result?.as_read && !item.preview && !item.correction)
    item.preview = { src: result.as_read, width: result.picture?.width, height: result.picture?.height };
  if (event === "end" && item === state.item) announce(run);
  if (item !== state.item) return drawHistory();
  if (event === "delta") return drawAnswers();
  draw();
}

function announce({ error, result, answers }) {
  const text = error
    ? translate(error.message)
    : result.readable === false
      ? t("announceRefusal", { text: translate(result.refusal_reason) })
      : t("announceAnswer", { text: translate(answers.at(-1)?.answer ?? "") });
  byId("announcement").textContent = [text, ...(result?.warnings ?? []).map(translate)].join(" ");
}

/** What the buttons of a refusal or a failure do. */
const mends = {
  corners: correct,
  turn(degrees) {
    const { correction } = state.item;
    state.item.correction = {
      corners: null,
      crop: correction?.crop ?? null,
      turn: ((correction?.turn ?? 0) + degrees) % 360,
    };
    askAgain(state.item);
  },
  asItIs() {
    state.item.asIs = true;
    askAgain(state.item);
  },
  samplingRate(hertz) {
    state.item.samplingRate = hertz;
    askAgain(state.item);
  },
  pickPage: pickOtherPage,
  otherPicture: () => byId("files").click(),
  tryAgain: (run) => enqueue(state.item, run.model, run.questions),
};

// What is shown ------------------------------------------------------------------------------------------------------

function select(item) {
  closeEditor();
  Object.assign(state, { item, view: "read" });
  draw();
  if (item) byId("name").focus();
}

function clearSession() {
  state.items.forEach((item) => item.runs.forEach((run) => run.controller?.abort()));
  state.items = [];
  select(null);
  byId("main").focus();
}

function remove(item) {
  item.runs.forEach((run) => run.controller?.abort());
  state.items = state.items.filter((other) => other !== item);
  if (item === state.item) select(state.items.at(-1) ?? null);
  else draw();
}

function draw() {
  const { item } = state;
  byId("start").hidden = Boolean(item);
  byId("reader").hidden = !item;
  drawHistory();
  if (!item) return;
  const runs = runsOf(item);
  const result = resultNow(item);
  byId("name").textContent = item.page ? `${item.name}, ${t("pageNumber", { n: item.page })}` : item.name;
  refill(byId("warnings"), warningsOf(result));
  refill(byId("how"), howOf(result, item.correction));
  refill(byId("measurements"), measurementsOf(result));
  refill(byId("scores"), scoresOf(runs, state.statements, isNarrow.matches));
  drawKey(runs.filter((run) => run.scores));
  byId("page").hidden = !(result?.pages > 1);
  const hasLeads = result?.page_as_read || result?.view === "waveform";
  for (const node of document.querySelectorAll("[data-format]"))
    node.disabled = !result || runs.some((run) => run.stage) || (node.dataset.format === "wfdb" && !hasLeads);
  drawAnswers();
  drawPicture();
}

function drawAnswers() {
  const runs = runsOf(state.item);
  const stage = runs.find((run) => run.stage)?.stage;
  byId("answers").classList.toggle("pair", runs.length > 1);
  refill(byId("answers"), answersOf(runs, mends));
  byId("stage").hidden = !stage;
  byId("stage-text").textContent = stage ?? "";
}

function drawKey(runs) {
  const text = t(runs.every((run) => run.calibrated) ? "calibrated" : "uncalibrated");
  const legend =
    runs.length > 1 && runs.map((run, i) => element("span", { class: `legend model-${i + 1}` }, run.model));
  const raw =
    runs.some((run) => run.uncalibrated?.length) && element("p", { class: "hint" }, `* ${t("notCalibrated")}`);
  refill(
    byId("scores-key"),
    legend,
    runs.length > 0 && element("p", { class: "hint", title: translate(runs[0].calibration) }, text),
    raw,
  );
}

function drawPicture() {
  const { item, view } = state;
  const result = resultNow(item);
  const asRead = result?.as_read;
  const isRead = view === "read" && asRead;
  const src = isRead ? asRead : item.preview?.src;
  const alt = t(isRead ? "pictureOf" : "pictureOriginal", { name: item.name });
  byId("picture").classList.toggle("busy", !result);
  if (!src) byId("picture").replaceChildren();
  else if (byId("picture").firstChild?.src !== src || byId("picture").firstChild.alt !== alt)
    byId("picture").replaceChildren(element("img", { src, alt }));
  byId("picture-views").hidden = !asRead || !item.preview || item.preview.src === asRead;
  for (const node of document.querySelectorAll("[data-view]"))
    node.setAttribute("aria-pressed", String(node.dataset.view === view));
  byId("enlarge").disabled = !src;
  byId("correct").disabled = !item.preview || result?.view === "waveform"; // a waveform's page is drawn, not read
}

function drawHistory() {
  byId("history").hidden = !state.items.length;
  refill(byId("history-list"), state.items.map(historyEntry));
}

function historyEntry(item) {
  const isCurrent = item === state.item;
  const src = item.preview?.src ?? resultNow(item)?.as_read;
  const isBusy = runsOf(item).some((run) => run.stage) || !runsOf(item).length;
  const name = item.page ? `${item.name}, ${t("pageNumber", { n: item.page })}` : item.name;
  return element(
    "li",
    { class: isBusy ? "busy" : "" },
    element(
      "button",
      { type: "button", class: "entry", "aria-current": isCurrent && "true", on: { click: () => select(item) } },
      src ? element("img", { src, alt: "" }) : element("span", { class: "blank" }),
      element("span", { class: "entry-name" }, name),
    ),
    button(element("span", { "aria-hidden": "true" }, "×"), () => remove(item), {
      class: "remove",
      "aria-label": t("remove", { name }),
    }),
  );
}

function drawChips() {
  byId("chips").replaceChildren(
    ...t("questions").map((question) =>
      element(
        "li",
        {},
        button(question, () => askAbout(state.item, [question]), { class: "chip" }),
      ),
    ),
  );
}

function correct() {
  const { item } = state;
  closeEditor();
  for (const id of ["picture", "tools"]) byId(id).hidden = true;
  byId("picture-views").hidden = true;
  byId("editor").hidden = false;
  state.closeEditor = openEditor(byId("editor"), {
    picture: item.preview,
    correction: item.correction,
    outline: resultNow(item)?.picture?.corners ?? null,
    onCancel: () => {
      closeEditor();
      byId("correct").focus();
    },
    onApply: (correction) => {
      item.correction = correction;
      closeEditor();
      askAgain(item);
      byId("name").focus();
    },
  });
}

function closeEditor() {
  state.closeEditor?.();
  state.closeEditor = null;
  byId("editor").hidden = true;
  byId("editor").replaceChildren();
  for (const id of ["picture", "tools"]) byId(id).hidden = false;
  if (state.item) drawPicture();
}

function enlarge() {
  const { src, alt } = byId("picture").firstChild;
  Object.assign(byId("picture-large"), { src, alt });
  byId("picture-dialog").showModal();
}

function showError(error) {
  byId("alert").replaceChildren(
    element("p", {}, translate(explain(error).message)),
    button(t("close"), () => byId("alert").replaceChildren(), { class: "quiet" }),
  );
}

// Export -------------------------------------------------------------------------------------------------------------

async function save(format) {
  const { item } = state;
  const result = resultOf(runsOf(item).find((run) => run.result));
  try {
    const blob =
      format === "wfdb"
        ? await postForBlob("/v1/digitize", { ...imageOf(item), format }, "application/zip")
        : await postForBlob("/v1/export", { result, format, language: currentLanguage() }, "*/*");
    const name = `${item.name.replace(/\.[^.]*$/, "") || "ecg"}${item.page ? `-${item.page}` : ""}.${ENDINGS[format]}`;
    download(blob, name);
    byId("announcement").textContent = t("saved", { name });
  } catch (error) {
    showError(error);
  }
}

function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
