# Run by 'spack -e ENV python': lists what has to be fetched for the packages of the
# environment that are not installed, a JSON object a line. For Spack 0.21 to 0.23.
import json
import sys

import spack.environment


def layout(stage):
    found = getattr(stage, "mirror_layout", None) or getattr(stage, "mirror_paths", None)
    return list(found) if found else []


for spec in spack.environment.active_environment().all_specs():
    if spec.external or spec.installed or not spec.package.has_code:
        continue
    # the source itself, resources and patches
    for stage in spec.package.stage:
        fetcher = getattr(stage, "default_fetcher", None)
        paths = layout(stage)
        if fetcher is None or not paths:
            continue
        url = getattr(fetcher, "url", "") or ""
        if url.startswith("file://"):
            continue
        line = {"hash": spec.dag_hash(), "package": "%s-%s" % (spec.name, spec.version), "url": url, "paths": paths}
        sys.stdout.write(json.dumps(line) + "\n")
