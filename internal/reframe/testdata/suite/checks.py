# One check for each way in which a test can end.
import os

import reframe as rfm
import reframe.utility.sanity as sn

# Older versions of ReFrame do not know expected failures.
xfail = getattr(rfm, 'xfail', None)


class Echo(rfm.RunOnlyRegressionTest):
    valid_systems = ['*']
    valid_prog_environs = ['*']
    executable = 'echo'
    wanted = variable(str, value='hello')

    @sanity_function
    def greets(self):
        return sn.assert_found(self.wanted, self.stdout, msg='no greeting')


@rfm.simple_test
class Passes(Echo):
    executable_opts = ['hello']


@rfm.simple_test
class Compiles(rfm.RegressionTest):
    valid_systems = ['*']
    valid_prog_environs = ['+c']
    sourcepath = 'hello.c'

    @sanity_function
    def greets(self):
        return sn.assert_found('hello', self.stdout)


@rfm.simple_test
class Measures(Echo):
    size = parameter([1, 2])
    executable_opts = ['hello', '10.5', 'MB/s']
    reference = {'*': {'bandwidth': (10, -0.1, 0.1, 'MB/s')}}

    @performance_function('MB/s')
    def bandwidth(self):
        return sn.extractsingle(r'hello (\S+)', self.stdout, 1, float)

    @performance_function('s')
    def free(self):
        return self.size / 4


@rfm.simple_test
class TooSlow(Echo):
    executable_opts = ['hello', '50']
    reference = {'*': {'latency': (100, -0.1, 0.1, 'us')}}

    @performance_function('us')
    def latency(self):
        return sn.extractsingle(r'hello (\S+)', self.stdout, 1, float)


@rfm.simple_test
class WrongOutput(Echo):
    executable_opts = ['bye']


@rfm.simple_test
class AfterWrongOutput(Echo):
    executable_opts = ['hello']

    @run_after('init')
    def wait(self):
        self.depends_on('WrongOutput')


@rfm.simple_test
class Skips(Echo):
    @run_after('setup')
    def leave(self):
        self.skip('no GPU here')


@rfm.simple_test
class DoesNotCompile(rfm.CompileOnlyRegressionTest):
    valid_systems = ['*']
    valid_prog_environs = ['*']
    sourcepath = 'broken.c'

    @sanity_function
    def done(self):
        return True


@rfm.simple_test
class Flaky(Echo):
    '''Passes on the second attempt.'''
    executable_opts = ['hello']

    @run_before('run')
    def first_attempt_fails(self):
        mark = os.path.join(os.environ['FLAKY_DIR'], self.name)
        if not os.path.exists(mark):
            open(mark, 'w').close()
            self.executable_opts = ['not yet']


if xfail:
    @rfm.simple_test
    @xfail('issue 42')
    class KnownFailure(Echo):
        executable_opts = ['bye']

    @rfm.simple_test
    @xfail('issue 43')
    class MendedFailure(Echo):
        executable_opts = ['hello']
