/** Temporary files of a test file lie below the run's directory: what stays is found, and is gone with the run. */
import { join } from 'node:path'
import process from 'node:process'
import { inject } from 'vitest'
import { closeAfterFile } from './leftovers.ts'
import './provided.ts'

/** A Unix socket's path may hold 103 bytes on macOS, and sockets are put into temporary directories. */
const longestPath = 60

/**
 * Everything that this process and those it starts create in the usual place is created in a directory of its own,
 * which has to be empty when the file ends. Where the run's directory has a long name the usual place stays in use.
 */
export async function useOwnTemporaryDirectory(): Promise<void> {
  const directory = join(inject('runDir'), `t${Deno.pid}`)
  if (directory.length > longestPath) return
  await Deno.mkdir(directory)
  await Deno.chmod(directory, 0o755)
  process.env.TMPDIR = directory
  closeAfterFile({
    name: 'its temporary directory',
    check: async () => {
      const left = (await Array.fromAsync(Deno.readDir(directory))).map((entry) => entry.name)
      if (left.length > 0) throw new Error(`remove in the test what it has created: ${left.join(', ')}`)
    },
    close: () => Deno.remove(directory, { recursive: true }),
  })
}
