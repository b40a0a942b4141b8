# Run by 'spack -e ENV python': lists what has to be fetched for the packages of the
# environment that are not installed, a JSON object a line. For Spack 0.21 to 0.23.
import json
import sys

import spack.environment
import spack.fetch_strategy
import spack.patch


def stages(package):
    if package.has_code:
        # several for resources; a source may also be a directory that is there already
        yield from package.stage
    for patch in package.spec.patches if package.spec.concrete else []:
        if isinstance(patch, spack.patch.UrlPatch):
            yield patch.stage


def layout(stage):
    found = getattr(stage, "mirror_layout", None) or getattr(stage, "mirror_paths", None)
    return list(found) if found else []


for spec in spack.environment.active_environment().all_specs():
    if spec.external or spec.installed:
        continue
    for stage in stages(spec.package):
        fetcher = getattr(stage, "default_fetcher", None)
        paths = layout(stage)
        if fetcher is None or not paths:
            continue
        url = getattr(fetcher, "url", "") or ""
        if url.startswith("file://"):
            continue
        line = {"hash": spec.dag_hash(), "package": "%s-%s" % (spec.name, spec.version), "url": url, "paths": paths}
        sys.stdout.write(json.dumps(line) + "\n")
