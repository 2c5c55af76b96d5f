"""The preflight: what a data set is made of and what is wrong with it, before the first epoch.

Functions of what was read of the files (`data.catalog`, `data.looks`) and of features; nothing here trains or
logs. `preflight` is the way in, `describe_backbone` asks, `report` tells.
"""
