"""Descriptions of codes, from the dictionaries of a MIMIC-IV release.

ICD-9 and ICD-10 share code strings, and so do diagnoses and procedures (0040 is a disease in one dictionary and a
procedure in another). A token's text may name the version (`9_4019`, `ICD10CM_I10`), and its feature's name the
dictionary (`procedures`). If several entries still match, all are shown and marked.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as pa_csv

from deeplift_fast.errors import SummaryError
from deeplift_fast.support.home import expanded

DICTIONARIES = ("d_icd_diagnoses", "d_icd_procedures", "d_labitems")

_VERSION = re.compile(r"^(?:ICD[-_ ]?)?(9|10)(?:[-_ ]?(CM|PCS|PROC))?[_:/| -]\s*(.+)$", re.IGNORECASE)
_FEATURES = {
    "d_icd_diagnoses": re.compile("diag|cond", re.IGNORECASE),
    "d_icd_procedures": re.compile("proc", re.IGNORECASE),
    "d_labitems": re.compile("lab", re.IGNORECASE),
}


@dataclass(frozen=True)
class Title:
    """The description of a code.

    Attributes:
        text: the description; several are joined by " / ", each with its origin.
        ambiguous: whether several entries match.
    """

    text: str
    ambiguous: bool = False


@dataclass(frozen=True)
class _Entry:
    dictionary: str
    version: int  # 9 or 10; 0 for laboratory items
    title: str

    def origin(self) -> str:
        if not self.version:
            return "laboratory item"
        return f"ICD-{self.version} {'diagnosis' if self.dictionary == 'd_icd_diagnoses' else 'procedure'}"


class Titles:
    """The dictionaries of a MIMIC-IV release.

    Args:
        root: its folder, which holds `hosp` and at least one of its dictionaries.

    Raises:
        SummaryError: if no dictionary is found, or one cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._entries: dict[str, list[_Entry]] = {}
        root = expanded(root, "--mimic-root")
        found = [name for name in DICTIONARIES if self._read(root, name)]
        if not found:
            raise SummaryError(
                f"--mimic-root {root} holds none of hosp/{', hosp/'.join(DICTIONARIES)} (.csv.gz or .csv); give the "
                "folder of a MIMIC-IV release"
            )

    def find(self, feature: str, code: str) -> Title | None:
        """The description of a feature's code; `None` if no dictionary has it.

        Args:
            feature: key of the feature.
            code: text of the token.
        """
        version, kind, bare = _split(code)
        entries = self._entries.get(_plain(code), []) if not version else []
        entries = entries or [e for e in self._entries.get(_plain(bare), []) if e.version in (version, 0)]
        hinted = {name for name, pattern in _FEATURES.items() if pattern.search(feature)}
        for dictionaries in ({kind}, hinted):
            entries = [entry for entry in entries if entry.dictionary in dictionaries] or entries
        if not entries:
            return None
        if len({entry.title for entry in entries}) == 1:
            return Title(entries[0].title)
        return Title(" / ".join(f"{entry.origin()}: {entry.title}" for entry in entries), ambiguous=True)

    def _read(self, root: Path, name: str) -> bool:
        path = find_table(root, f"hosp/{name}")
        if path is None:
            return False
        lab = name == "d_labitems"
        wanted = ["itemid", "label"] if lab else ["icd_code", "icd_version", "long_title"]
        options = pa_csv.ConvertOptions(column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted)
        try:
            columns = pa_csv.read_csv(path, convert_options=options).to_pydict()
        except (pa.ArrowInvalid, KeyError) as error:
            raise SummaryError(f"{path} cannot be read as MIMIC-IV's {name}") from error
        codes, titles = columns[wanted[0]], columns[wanted[-1]]
        versions = [0] * len(codes) if lab else [int(v) for v in columns["icd_version"]]
        for code, version, title in zip(codes, versions, titles, strict=True):
            self._entries.setdefault(_plain(code), []).append(_Entry(name, version, (title or "").strip()))
        return True


def find_table(root: Path, name: str) -> Path | None:
    """The file of a table, gzipped or not; `None` if neither is there.

    Args:
        root: folder of a MIMIC-IV release, which holds `hosp` and `icu`.
        name: path of the table under it, without suffix, such as `"hosp/patients"`.
    """
    return next((path for path in table_candidates(root, name) if path.is_file()), None)


def table_candidates(root: Path, name: str) -> tuple[Path, Path]:
    """The paths at which a table is looked for."""
    return root / f"{name}.csv.gz", root / f"{name}.csv"


def _split(code: str) -> tuple[int, str, str]:
    """The ICD version (0: none) and dictionary ("": none) that a token's text names, and the code itself."""
    match = _VERSION.match(code.strip())
    if match is None:
        return 0, "", code
    kinds = {"CM": "d_icd_diagnoses", "PCS": "d_icd_procedures", "PROC": "d_icd_procedures"}
    return int(match[1]), kinds.get((match[2] or "").upper(), ""), match[3]


def _plain(code: str) -> str:
    """A code as MIMIC-IV writes it: capitals, no dots."""
    return code.strip().upper().replace(".", "")
