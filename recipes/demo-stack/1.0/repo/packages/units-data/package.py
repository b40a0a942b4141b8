from spack.package import *


class UnitsData(Package):
    """The table of units that libunits reads."""

    homepage = "https://uenv-ci.dev"
    has_code = False

    version("2025")
    version("2024")

    variant("extra", default=False, description="Units beyond those of length")

    def install(self, spec, prefix):
        tables = ["length.txt"] + (["time.txt"] if "+extra" in spec else [])
        mkdirp(prefix.share.units)
        with open(join_path(prefix.share.units, "table.txt"), "w") as out:
            for table in tables:
                with open(join_path(self.package_dir, table)) as f:
                    out.write(f.read())
