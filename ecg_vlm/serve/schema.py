"""What the API takes and gives, as JSON. Unknown keys are refused, except in OpenAI's shape."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ecg_vlm.translation import Language
from render.statements import STATEMENTS

MOST_IMAGES = 20
MOST_QUESTIONS = 20
MOST_TOKENS = 1024
MOST_QUESTION_CHARACTERS = 2000
MOST_ANSWER_CHARACTERS = 20_000
MOST_ANSWERS = 1000


def _known_code(code: str) -> str:
    if code not in STATEMENTS:
        raise ValueError("no code of /v1/statements")
    return code


_Scores = dict[Annotated[str, AfterValidator(_known_code)], Annotated[float, Field(ge=0, le=1)]]
_Measurements = dict[Annotated[str, Field(max_length=40)], float]
_Text = Annotated[str, Field(max_length=MOST_ANSWER_CHARACTERS)]
_Point = tuple[float, float]
_Question = Annotated[str, Field(min_length=1, max_length=MOST_QUESTION_CHARACTERS)]


class Strict(BaseModel):
    """A JSON object without other keys than these."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Upload(Strict):
    """A file of an ECG: a picture, a PDF, DICOM or a waveform. What it is, its content says."""

    name: str = Field(default="upload", max_length=500, description="the file's name, for messages and results")
    data: str = Field(description="the file as a data URI, data:image/jpeg;base64,...")
    sampling_rate: float | None = Field(
        default=None, gt=0, le=100_000, description="hertz, of a waveform file that does not give it"
    )


class Correction(Strict):
    """How to mend a page before it is read: first `crop` and `corners`, then `turn`."""

    turn: Literal[0, 90, 180, 270] = Field(default=0, description="degrees clockwise")
    corners: tuple[_Point, _Point, _Point, _Point] | None = Field(
        default=None,
        description="of the sheet: top left, top right, bottom right, bottom left; pixels of the uploaded picture",
    )
    crop: tuple[float, float, float, float] | None = Field(
        default=None, description="left, top, right, bottom; pixels of the uploaded picture"
    )
    size: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = Field(
        default=None,
        description="width and height of the picture that corners and crop refer to, where it is another size",
    )


class PageRequest(Strict):
    """Which pages, and how they are mended."""

    images: list[Upload] = Field(min_length=1, max_length=MOST_IMAGES)
    page: Annotated[int, Field(ge=1, le=100)] | Literal["all"] | None = Field(
        default=None, description="of a file with several; null: the first that is not blank"
    )
    correction: Correction | None = None


class AnswerText(Strict):
    """An answer, and the question that it was given to."""

    answer: str = Field(max_length=MOST_ANSWER_CHARACTERS)
    question: str = Field(default="", max_length=MOST_ANSWER_CHARACTERS)


class AskRequest(PageRequest):
    """Questions about pages."""

    questions: list[_Question] = Field(default=["What does this ECG show?"], max_length=MOST_QUESTIONS)
    history: list[AnswerText] = Field(
        default=[],
        max_length=MOST_QUESTIONS,
        description="turns before the questions, for models that know such; nano does not",
    )
    model: str | None = Field(default=None, description="an id of /v1/models; null: the first")
    scores: bool = Field(default=True, description="P(present) of all 71 statements, too")
    stream: bool = Field(default=False, description="server-sent events")
    as_is: bool = Field(default=False, description="show the model the picture as it is, not drawn anew")
    max_new_tokens: int = Field(default=128, ge=1, le=MOST_TOKENS)
    view: bool = Field(default=True, description="the picture as it was read, as a PNG in as_read")


class ScoreRequest(PageRequest):
    """P(present) of all statements."""

    model: str | None = None
    as_is: bool = False


class PagesRequest(Strict):
    """The pages of one file."""

    images: list[Upload] = Field(min_length=1, max_length=1)


class DigitizeRequest(PageRequest):
    """Leads in millivolts."""

    format: Literal["json", "csv", "wfdb"] = "json"


class ParseRequest(Strict):
    """Answers in words: `text`, or `answers`."""

    text: str | None = Field(default=None, max_length=MOST_ANSWER_CHARACTERS)
    answers: list[AnswerText] | None = Field(default=None, max_length=MOST_ANSWERS)
    cautious: bool = Field(default=False, description='"consistent with" and the like count as uncertain')


class ExportRequest(Strict):
    """A result of /v1/ask as a document."""

    result: Result
    format: Literal["pdf", "html", "fhir", "json"]
    language: Language = Field(default="en", description="of a report; FHIR and JSON are in English")


class AnswerObject(BaseModel):
    """The answer to one question."""

    model_config = ConfigDict(extra="allow")

    question: str = Field(max_length=MOST_ANSWER_CHARACTERS)
    answer: str = Field(max_length=MOST_ANSWER_CHARACTERS)
    contradicted: _Scores = Field(default={}, description="P(present) of the statements that the model takes back")
    understood: bool = True
    original: str = Field(default="", max_length=MOST_ANSWER_CHARACTERS)


class Size(BaseModel):
    """Of the page's picture before a correction, pixels, and the sheet's corners on it."""

    width: int
    height: int
    corners: tuple[_Point, _Point, _Point, _Point] | None = None


class Result(BaseModel):
    """What is said about one page: the object that `ecg-vlm ask --json` prints, and the page as it was read."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    schema_version: int
    version: str = Field(max_length=100)
    image: str = Field(max_length=500)
    image_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    page: int
    pages: int
    model: str = Field(max_length=500)
    readable: bool
    refusal_reason: _Text
    view: _Text
    page_as_read: dict[str, Any] | None
    not_digitized_because: _Text
    measurements: _Measurements
    measured_on: _Text
    st_elevation_mv: _Measurements
    warnings: Annotated[list[_Text], Field(max_length=MOST_ANSWERS)]
    answers: list[AnswerObject] = Field(max_length=MOST_ANSWERS)
    scores: _Scores
    calibrated: bool = False
    thresholds: _Scores | None = None
    as_read: str | None = Field(default=None, pattern="^data:image/png;base64,[A-Za-z0-9+/=]*$")
    picture: Size | None = None


class AskResponse(BaseModel):
    """One result a page."""

    schema_version: int
    results: list[Result]


ExportRequest.model_rebuild()
