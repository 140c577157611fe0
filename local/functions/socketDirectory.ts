/** Where a host's sockets are: a directory of its own with a short path, since a socket's may have 108 bytes at most. */
import { join } from 'node:path'
import { controlSocketName } from './controlServer.ts'

const parent = '/tmp'
const prefix = 'holdfast-'

/** Makes one that only its owner may enter, and removes those of hosts that could not clean up after themselves. */
export async function makeSocketDirectory(): Promise<string> {
  for await (const { name, isDirectory } of Deno.readDir(parent)) {
    const directory = join(parent, name)
    if (isDirectory && /^holdfast-[0-9a-f]+$/.test(name) && await isAbandoned(directory)) {
      await Deno.remove(directory, { recursive: true }).catch(() => {})
    }
  }
  return await Deno.makeTempDir({ dir: parent, prefix })
}

/** A younger one may be about to be listened to. */
const youngMs = 10_000

/** A control socket that nobody listens on. Where there is none, or it is somebody else's, we leave all as it is. */
async function isAbandoned(directory: string): Promise<boolean> {
  try {
    const { mtime } = await Deno.stat(directory)
    if (mtime === null || Date.now() - mtime.getTime() < youngMs) return false
    const connection = await Deno.connect({ transport: 'unix', path: join(directory, controlSocketName) })
    connection.close()
    return false
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused
  }
}
