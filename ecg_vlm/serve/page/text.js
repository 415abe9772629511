// The words of the page, in English and German. What the server says comes in English; its German is the table that the
// server has for reports, too.

const ENGLISH = {
  skip: "Skip to the ECG",
  notDevice: "Not a medical device. Nothing here is a diagnosis.",
  model: "Model",
  compareWith: "Compare with",
  noSecond: "none",
  language: "Language",
  history: "ECGs of this session",
  add: "Add ECG",
  clear: "Clear all",
  remove: "Remove {name}",
  startTitle: "Put an ECG here",
  startLead: "A photo, a scan, a PDF, DICOM or a waveform file. Drop it, paste it, or choose it.",
  photograph: "Take a photo",
  chooseFiles: "Choose files",
  startHint: "Several at once are fine. Keep the whole sheet in the picture; a slanted or turned one is straightened.",
  promiseReadTitle: "You see what was read",
  promiseRead:
    "The sheet is straightened, its leads become millivolts, and rate, intervals, axis and ST elevation are measured on them.",
  promiseCheckTitle: "The answer is checked",
  promiseCheck: "Whatever the model states it is asked again, alone. What it takes back is shown in amber.",
  promiseLocalTitle: "Nothing leaves this machine",
  promiseLocal:
    "No other host is contacted, no picture is written to disk, and this session is gone when you close the page.",
  dropHere: "Drop to read",
  sheet: "ECG sheet",
  asRead: "As read",
  original: "Original",
  correct: "Correct corners, turn, crop",
  enlarge: "Enlarge",
  otherPage: "Another page",
  close: "Close",
  answers: "Answers",
  stop: "Stop",
  waiting: "Waiting for the one before",
  queued: "{n} before this one",
  reading: "Reading the sheet",
  answering: "Answering",
  scoring: "Scoring 71 statements",
  question: "Your question",
  questionHint: "Ask about this ECG",
  ask: "Ask",
  commonQuestions: "Common questions",
  questions: [
    "What is the rhythm?",
    "Is this a normal ECG?",
    "Is there a myocardial infarction?",
    "Is there ST elevation?",
    "Is there a bundle branch block?",
    "Is there left ventricular hypertrophy?",
    "Is the QT interval prolonged?",
  ],
  firstQuestion: "What does this ECG show?",
  takenBack: "Taken back by the model",
  takenBackWhy: "Asked about each alone, it gives these probabilities, against its own answer:",
  revision: "The model's own words were: {text}",
  notUnderstood: "Not understood",
  measurements: "Measurements",
  measuredOn: {
    "digitized leads": "Measured on the leads digitised from the picture",
    waveform: "Measured on the waveform in the file",
  },
  measuredNothing: "Nothing could be measured: the leads of this picture could not be read.",
  rate: "Heart rate",
  pr: "PR interval",
  qrs: "QRS duration",
  qt: "QT interval",
  qtc: "QTc (Fridericia)",
  axis: "QRS axis",
  st: "ST elevation",
  stNone: "none of 0.2 mV or more in neighbouring leads",
  usual: "usual {range}",
  above: "above",
  below: "below",
  notMeasurable: "not measurable",
  statements: "71 statements",
  groups: {
    rhythm: "Rhythm",
    conduction: "Conduction",
    infarction: "Infarction",
    hypertrophy: "Hypertrophy",
    "ST-T": "ST-T",
    form: "Form",
    other: "Overall",
  },
  calibrated: "Calibrated probabilities; the mark is the threshold of each statement.",
  uncalibrated: "Not calibrated: they rank, but are no probabilities of disease. The mark is at 0.5.",
  notCalibrated: "not calibrated",
  groupCount: "{n} of {all} present",
  present: "present; threshold {p}",
  notPresent: "not present; threshold {p}",
  noScores: "They appear with the answer.",
  notScored: "No statement is scored for this picture.",
  exportTitle: "Export",
  exports: {
    pdf: "One page to print",
    json: "All that is shown here, as JSON",
    wfdb: "The digitised leads at 500 Hz",
    fhir: "A preliminary FHIR DiagnosticReport, without patient data",
  },
  how: "How it was read",
  format: "Format",
  speed: "Paper speed",
  gain: "Gain",
  fromPrint: "as printed",
  fromPulse: "from the calibration pulse",
  fromGrid: "from the plot's grid",
  assumed: "assumed",
  leadCount: "Leads",
  leadsRead: "{n} of 12",
  missing: "missing: {leads}",
  answeredBy: "Answered by",
  shownToModel: "Shown to the model",
  views: {
    picture: "the picture as it is",
    "digitized leads": "the page drawn anew from its leads",
    waveform: "the waveform, drawn",
  },
  remark: "Remark",
  notDigitized: "Leads not read",
  refusal: "This picture cannot be read",
  unreadWhy: "The answer is about the picture as it is, and nothing was measured.",
  refusalHelp: "What may help:",
  turnLeft: "Turn left",
  turnRight: "Turn right",
  turnOver: "Turn upside down",
  markCorners: "Mark the corners",
  asItIs: "Ask about the picture as it is",
  pickPage: "Pick another page",
  otherPicture: "Choose another picture",
  warning: "Warning",
  corners: "Corners",
  crop: "Crop",
  editorHelp:
    "Drag the handles to the corners of the sheet, or move them with the arrow keys (with Shift in larger steps).",
  handles: ["Top left", "Top right", "Bottom right", "Bottom left"],
  handleValue: "{x}, {y} pixels",
  editMode: "What to correct",
  readAgain: "Read again",
  reset: "Reset",
  cancel: "Cancel",
  corrected: "as corrected by you",
  pagesTitle: "Which pages?",
  pageNumber: "Page {n}",
  blankPage: "blank",
  readPages: "Read the pages",
  tokenTitle: "This server asks for its token",
  tokenLead: "It stands in the address that ecg-vlm serve printed, behind #token=.",
  token: "Token",
  continue: "Continue",
  samplingRate: "Sampling rate, Hz",
  tryAgain: "Try again",
  tryAgainIn: "Try again in {n} s",
  unreachable: "The server cannot be reached. Is ecg-vlm serve still running?",
  stopped: "Stopped.",
  ended: "The answer ended early. Try again.",
  announceAnswer: "Answer: {text}",
  announceRefusal: "This picture cannot be read: {text}",
  pictureOf: "{name}, as read: the leads are boxed in the picture",
  pictureOriginal: "{name}, as given",
  saved: "{name} saved.",
  foot: "Runs on this machine. The pictures, answers and history of this session are gone when the page is closed.",
};

const GERMAN = {
  skip: "Zum EKG springen",
  notDevice: "Kein Medizinprodukt. Nichts hier ist eine Diagnose.",
  model: "Modell",
  compareWith: "Vergleichen mit",
  noSecond: "keinem",
  language: "Sprache",
  history: "EKGs dieser Sitzung",
  add: "EKG hinzufügen",
  clear: "Alle entfernen",
  remove: "{name} entfernen",
  startTitle: "Hier ein EKG ablegen",
  startLead: "Ein Foto, ein Scan, PDF, DICOM oder eine Signaldatei. Hineinziehen, einfügen oder auswählen.",
  photograph: "Foto aufnehmen",
  chooseFiles: "Dateien auswählen",
  startHint:
    "Auch mehrere auf einmal. Das ganze Blatt gehört ins Bild; schräge und gedrehte Blätter werden ausgerichtet.",
  promiseReadTitle: "Sie sehen, was gelesen wurde",
  promiseRead:
    "Das Blatt wird ausgerichtet, die Ableitungen werden zu Millivolt; darauf werden Frequenz, Zeiten, Achse und ST-Hebung gemessen.",
  promiseCheckTitle: "Die Antwort wird geprüft",
  promiseCheck:
    "Was das Modell behauptet, wird es noch einmal einzeln gefragt. Was es zurücknimmt, ist gelb unterlegt.",
  promiseLocalTitle: "Nichts verlässt diesen Rechner",
  promiseLocal:
    "Kein anderer Rechner wird angesprochen, kein Bild gespeichert, und mit dem Schließen der Seite ist die Sitzung fort.",
  dropHere: "Loslassen zum Lesen",
  sheet: "EKG-Blatt",
  asRead: "Wie gelesen",
  original: "Original",
  correct: "Ecken, Drehung, Ausschnitt",
  enlarge: "Vergrößern",
  otherPage: "Andere Seite",
  close: "Schließen",
  answers: "Antworten",
  stop: "Anhalten",
  waiting: "Wartet auf das vorige",
  queued: "{n} davor",
  reading: "Das Blatt wird gelesen",
  answering: "Antwortet",
  scoring: "71 Aussagen werden bewertet",
  question: "Ihre Frage",
  questionHint: "Frage zu diesem EKG",
  ask: "Fragen",
  commonQuestions: "Häufige Fragen",
  questions: [
    "Welcher Rhythmus liegt vor?",
    "Ist dieses EKG normal?",
    "Liegt ein Herzinfarkt vor?",
    "Liegt eine ST-Hebung vor?",
    "Liegt ein Schenkelblock vor?",
    "Liegt eine Linkshypertrophie vor?",
    "Ist die QT-Zeit verlängert?",
  ],
  firstQuestion: "Was zeigt dieses EKG?",
  takenBack: "Vom Modell zurückgenommen",
  takenBackWhy: "Einzeln gefragt, gibt es diese Wahrscheinlichkeiten an, entgegen der eigenen Antwort:",
  revision: "Die eigenen Worte des Modells: {text}",
  notUnderstood: "Nicht verstanden",
  measurements: "Messwerte",
  measuredOn: {
    "digitized leads": "Gemessen an den aus dem Bild digitalisierten Ableitungen",
    waveform: "Gemessen am Signal in der Datei",
  },
  measuredNothing: "Nichts messbar: Die Ableitungen dieses Bildes konnten nicht gelesen werden.",
  rate: "Herzfrequenz",
  pr: "PQ-Zeit",
  qrs: "QRS-Dauer",
  qt: "QT-Zeit",
  qtc: "QTc (Fridericia)",
  axis: "QRS-Achse",
  st: "ST-Hebung",
  stNone: "keine von 0,2 mV oder mehr in benachbarten Ableitungen",
  usual: "üblich {range}",
  above: "darüber",
  below: "darunter",
  notMeasurable: "nicht messbar",
  statements: "71 Aussagen",
  groups: {
    rhythm: "Rhythmus",
    conduction: "Erregungsleitung",
    infarction: "Infarkt",
    hypertrophy: "Hypertrophie",
    "ST-T": "ST-T",
    form: "Form",
    other: "Insgesamt",
  },
  calibrated: "Kalibrierte Wahrscheinlichkeiten; der Strich ist die Schwelle der Aussage.",
  uncalibrated:
    "Nicht kalibriert: Sie ordnen, sind aber keine Wahrscheinlichkeiten einer Krankheit. Der Strich steht bei 0,5.",
  notCalibrated: "nicht kalibriert",
  groupCount: "{n} von {all} vorhanden",
  present: "vorhanden; Schwelle {p}",
  notPresent: "nicht vorhanden; Schwelle {p}",
  noScores: "Sie erscheinen mit der Antwort.",
  notScored: "Zu diesem Bild wird keine Aussage bewertet.",
  exportTitle: "Export",
  exports: {
    pdf: "Eine Seite zum Drucken",
    json: "Alles, was hier steht, als JSON",
    wfdb: "Die digitalisierten Ableitungen mit 500 Hz",
    fhir: "Ein vorläufiger FHIR DiagnosticReport ohne Patientendaten",
  },
  how: "Wie gelesen wurde",
  format: "Format",
  speed: "Vorschub",
  gain: "Verstärkung",
  fromPrint: "wie gedruckt",
  fromPulse: "aus dem Eichimpuls",
  fromGrid: "aus dem Raster der Grafik",
  assumed: "angenommen",
  leadCount: "Ableitungen",
  leadsRead: "{n} von 12",
  missing: "es fehlen: {leads}",
  answeredBy: "Antworten von",
  shownToModel: "Dem Modell gezeigt",
  views: {
    picture: "das Bild, wie es ist",
    "digitized leads": "die aus den Ableitungen neu gezeichnete Seite",
    waveform: "das gezeichnete Signal",
  },
  remark: "Bemerkung",
  notDigitized: "Ableitungen nicht gelesen",
  refusal: "Dieses Bild kann nicht gelesen werden",
  unreadWhy: "Die Antwort gilt dem Bild, wie es ist, und nichts wurde gemessen.",
  refusalHelp: "Was helfen kann:",
  turnLeft: "Nach links drehen",
  turnRight: "Nach rechts drehen",
  turnOver: "Auf den Kopf drehen",
  markCorners: "Ecken markieren",
  asItIs: "Zum Bild fragen, wie es ist",
  pickPage: "Andere Seite wählen",
  otherPicture: "Anderes Bild wählen",
  warning: "Warnung",
  corners: "Ecken",
  crop: "Ausschnitt",
  editorHelp:
    "Ziehen Sie die Griffe auf die Ecken des Blattes, oder bewegen Sie sie mit den Pfeiltasten (mit Umschalt in größeren Schritten).",
  handles: ["Oben links", "Oben rechts", "Unten rechts", "Unten links"],
  handleValue: "{x}, {y} Pixel",
  editMode: "Was berichtigt wird",
  readAgain: "Neu lesen",
  reset: "Zurücksetzen",
  cancel: "Abbrechen",
  corrected: "von Ihnen berichtigt",
  pagesTitle: "Welche Seiten?",
  pageNumber: "Seite {n}",
  blankPage: "leer",
  readPages: "Seiten lesen",
  tokenTitle: "Dieser Server verlangt sein Kennwort (Token)",
  tokenLead: "Es steht in der Adresse, die ecg-vlm serve ausgegeben hat, hinter #token=.",
  token: "Token",
  continue: "Weiter",
  samplingRate: "Abtastrate, Hz",
  tryAgain: "Noch einmal",
  tryAgainIn: "Noch einmal in {n} s",
  unreachable: "Der Server ist nicht erreichbar. Läuft ecg-vlm serve noch?",
  stopped: "Angehalten.",
  ended: "Die Antwort brach ab. Bitte noch einmal versuchen.",
  announceAnswer: "Antwort: {text}",
  announceRefusal: "Dieses Bild kann nicht gelesen werden: {text}",
  pictureOf: "{name}, wie gelesen: Die Ableitungen sind im Bild umrahmt",
  pictureOriginal: "{name}, wie gegeben",
  saved: "{name} gespeichert.",
  foot: "Läuft auf diesem Rechner. Bilder, Antworten und Verlauf dieser Sitzung sind fort, sobald die Seite geschlossen wird.",
};

const TEXTS = { en: ENGLISH, de: GERMAN };
let names = {}; // of the statements, by language and code
let rows = []; // of the table of the server's sentences: what stands between placeholders, their names, the German
let language = navigator.language.startsWith("de") ? "de" : "en";

export const currentLanguage = () => language;

/** The text of a key ("groups.rhythm" of a nested one), its {placeholders} filled. */
export function t(key, values = {}) {
  const text = key.split(".").reduce((texts, part) => texts?.[part], TEXTS[language]) ?? key;
  return typeof text === "string" ? text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "") : text;
}

/** Take the names of the statements, as the server has them; the English ones without their article. */
export function setStatementNames(statements) {
  const of = (name) => Object.fromEntries(statements.map((statement) => [statement.code, name(statement)]));
  names = { en: of(({ name }) => name.replace(/^an? /, "")), de: of(({ name_de }) => name_de) };
}

export function statementName(code) {
  return names[language]?.[code] ?? code;
}

/** Take the server's table of sentences, {English: German}; those with the most words are tried first. */
export function setMessages(table) {
  const length = ({ parts }) => parts.join("").length;
  rows = Object.entries(table).map(([english, german]) => {
    const pieces = english.split(/\{(\w+)\}/);
    return { parts: pieces.filter((_, i) => i % 2 === 0), keys: pieces.filter((_, i) => i % 2), german };
  });
  rows.sort((a, b) => length(b) - length(a));
}

/** What the server says, in the language of the page; as it is where the table does not have it. */
export function translate(text) {
  if (language === "en" || !text) return text;
  for (const { parts, keys, german } of rows) {
    const values = valuesIn(text, parts);
    if (!values) continue;
    const words = keys.map((key, i) => [key, key === "source" ? values[i] : translate(values[i])]);
    const wordOf = Object.fromEntries(words);
    return german.replace(/\{(\w+)\}/g, (_, key) => wordOf[key]);
  }
  return text;
}

/** What stands in a text between some parts of it, each at its first place; null where they are not all there. */
function valuesIn(text, parts) {
  if (!text.startsWith(parts[0])) return null;
  const values = [];
  let start = parts[0].length;
  for (const [i, part] of parts.entries()) {
    if (i === 0) continue;
    const end = i < parts.length - 1 ? text.indexOf(part, start) : text.length - part.length;
    if (end < start || !text.startsWith(part, end)) return null;
    values.push(text.slice(start, end));
    start = end + part.length;
  }
  return start === text.length ? values : null;
}

export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits })
    .format(value)
    .replace("-", "−");
}

/** Set the language, and all texts that stand in the HTML. */
export function setLanguage(code) {
  language = code;
  document.documentElement.lang = code;
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const node of document.querySelectorAll("[data-title]")) node.title = t(node.dataset.title);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  for (const node of document.querySelectorAll("[data-language]"))
    node.setAttribute("aria-pressed", String(node.dataset.language === code));
}
