package cli

// allCommands lists the program's commands in the order of the overview.
func allCommands() []*command {
	return []*command{
		lintCommand(), configureCommand(), buildCommand(), reproduceCommand(),
		ciCommand(), testCommand(), pushCommand(), attachCommand(),
		findCommand(), lsCommand(), inspectCommand(), diffCommand(), pullCommand(), upgradeCommand(), runCommand(), rmCommand(), repoCommand(),
		promoteCommand(), copyCommand(), deprecateCommand(), undeprecateCommand(), deleteCommand(), pruneCommand(), repairCommand(), catalogCommand(), reportCommand(),
		packCommand(), unpackCommand(), verifyCommand(), mountCommand(),
		demoCommand(), initCommand(), doctorCommand(), completionCommand(), versionCommand(), helpCommand(),
	}
}
