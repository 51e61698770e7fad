"""Charts without a screen: what each chart shows, how series are reduced to columns, braille text, SVG and PNG.

`model` holds the data of a chart, `kinds` the table of charts, `plot` draws one as text, `figure` as SVG or PNG. The
screen, the first frame, `eegwatch export` and `eegwatch report` all draw from here; nothing here imports Textual.
"""
