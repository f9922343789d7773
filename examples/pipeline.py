"""Plans of 6 and 8 calls for a pipeline of diffusers, compared with its schedulers."""

import sys

import diffusers

import scorefield as sf

pipeline = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1])
call = {"guidance_scale": 7.5, "batch_size": 8}
plans = sf.interop.diffusers.tune(pipeline, ["a fox", "two dogs", "snow"], (6, 8), **call)
print(sf.interop.diffusers.compare(pipeline, ["the old sea"], plans={"tuned": plans}, **call))
