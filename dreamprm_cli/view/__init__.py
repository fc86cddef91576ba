"""What the user sees. Events fold into a ViewState; everything else draws a ViewState and knows nothing of models.

text    text of models and tests, made harmless          grid    the running view: a row per candidate
heat    rewards as colours and glyphs                     report  the last screen: ranking, winner, usage
state   ViewState = fold(events)                          plain   the same news as lines, for pipes and logs
line    one line of segments, never too wide              live    LiveView: puts these on a console
paint   a block of lines kept current on a terminal       replay, svg, demo   recorded or scripted events
progress  model downloads                                 tables  lists of models and of checks
bench, curves   what a reward model is worth              adherence, bars   the Chain-of-Function report
"""
