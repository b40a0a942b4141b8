from spack.package import *


class HelloUenv(Package):
    """A program that says hello and which compiler made it.

    Its source is beside this file, so that nothing has to be fetched."""

    homepage = "https://uenv-ci.dev"
    has_code = False

    version("1.0")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        source = join_path(self.package_dir, "hello.c")
        Executable(self.compiler.cc)("-O2", "-o", prefix.bin.hello, source)
