from spack.package import *


class UnitsCli(Package):
    """convert-units, the program of libunits."""

    homepage = "https://uenv-ci.dev"
    has_code = False

    version("1.2")
    version("1.1")

    depends_on("libunits@1.1:")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        Executable(self.compiler.cc)(
            "-O2",
            "-o",
            join_path(prefix.bin, "convert-units"),
            join_path(self.package_dir, "convert-units.c"),
            spec["libunits"].headers.include_flags,
            spec["libunits"].libs.search_flags,
            "-lunits",
        )

    def setup_run_environment(self, env):
        env.set("UNITS_HOME", self.prefix)
