package hostile

const callerEnv = "HOSTILE_TEST_CALLER"

func playCaller(args []string) int { return 0 }
