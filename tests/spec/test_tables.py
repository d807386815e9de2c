"""tables: strings as they stand, numbers to the last digit."""

import numpy as np

from footprint import spec


def test_a_frame_holds_the_numbers_of_the_table_to_the_last_digit_and_words_as_they_stand():
    for name in ("parameters", "measurements", "gpus"):
        frame, rows = spec.frame(name), spec.table(name)
        for column in frame:
            cells = [row[column] for row in rows]
            if frame[column].dtype.kind in "if":
                assert np.array_equal(
                    frame[column], [float(cell) for cell in cells], equal_nan=True
                )
            else:
                assert frame[column].fillna("nan").tolist() == cells
    assert spec.frame("parameters")["value"].dtype == float
    assert {type(row["g_per_gb"]) for row in spec.rows("memory")} == {float}
    assert {row["divide_by_yield"] for row in spec.rows("memory")} == {0, 1}
    assert spec.frame("measurements")["chunk_tokens"].dtype.kind == "i"
