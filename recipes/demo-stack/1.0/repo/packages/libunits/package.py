from spack.package import *


class Libunits(MakefilePackage):
    """A library that converts units."""

    homepage = "https://uenv-ci.dev"
    has_code = False

    version("1.1")
    version("1.0")

    variant("shared", default=False, description="Build a shared library")

    depends_on("gmake", type="build")
    depends_on("units-data")

    def edit(self, spec, prefix):
        for name in ("Makefile", "units.c", "units.h"):
            install(join_path(self.package_dir, name), ".")

    @property
    def build_targets(self):
        table = self.spec["units-data"].prefix.share.units.join("table.txt")
        return [f"TABLE={table}", "libunits.so" if "+shared" in self.spec else "libunits.a"]

    def install(self, spec, prefix):
        mkdirp(prefix.lib, prefix.include)
        install("libunits.*", prefix.lib)
        install("units.h", prefix.include)
