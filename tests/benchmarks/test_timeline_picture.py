"""The picture of a patient's timeline, drawn from a made-up folder of the demo."""

import xml.etree.ElementTree as ElementTree

import cohort_folders as cohorts
import timeline_picture


def test_the_held_out_patient_with_the_highest_risk_of_several_stays_is_drawn_alike_each_time(tmp_path):
    found, rows = cohorts.draw()
    stays = [[{"label": f"{n}", "begin": float(n)} for n in range(1 + sample % 5)] for sample in found["sample"]]
    found = found.assign(split=["train", "test", "validation"] * 20, stays=stays)
    out = cohorts.write(tmp_path / "demo", found, rows)
    (out / "hospital/hosp").mkdir(parents=True)
    (out / "hospital/hosp/d_labitems.csv").write_text("itemid,label\n50983,Sodium\n")
    may = found[(found["split"] == "test") & (found["sample"] % 5 >= 3)]
    assert found.loc[timeline_picture.chosen(out), "probability"] == may["probability"].max()
    for name in ("a.svg", "b.svg"):
        timeline_picture.draw(out, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_picture_in_the_docs_is_one_file_that_loads_nothing():
    tree = ElementTree.parse(timeline_picture.SVG)
    links = [value for each in tree.iter() for name, value in each.attrib.items() if name.endswith("href")]
    assert all(link.startswith("#") for link in links)
    assert "<image" not in timeline_picture.SVG.read_text()
