/** Runs in the process of every test file: ends what the file has opened, and fails it for what it has forgotten. */
import process from 'node:process'
import { afterAll } from 'vitest'
import { closeLeftovers } from './leftovers.ts'
import { useOwnTemporaryDirectory } from './temporaryFiles.ts'

await useOwnTemporaryDirectory()

// Registered before the file's own hooks, so it runs after them.
afterAll(closeLeftovers)

// Ctrl-C in a terminal reaches every process of the run; the main one ends this one when it is time.
process.on('SIGINT', () => {})
// The run is over, or its main process has gone without a word: leave in good order, which also writes the coverage.
process.once('SIGTERM', () => process.exit(0))
process.once('disconnect', () => process.exit(1))
