/** Lets one process at a time work on a directory; the system frees the lock when its holder dies. */
import { LocalError } from '../errors.ts'

/** Seconds that another process may keep us waiting: as long as a start of the server may take, and some. */
const patienceSeconds = 90

/** Runs the work while holding the lock of the file, which is created if need be and stays behind empty. */
export async function withLock<T>(file: string, work: () => Promise<T>): Promise<T> {
  using handle = await Deno.open(file, { create: true, write: true })
  const deadline = Date.now() + patienceSeconds * 1000
  while (!(await handle.tryLock(true))) {
    if (Date.now() > deadline) {
      throw new LocalError(
        `Cannot work on the database: another process has been at it for ${patienceSeconds} s`,
        {
          where: file,
          fix: 'End the other start, stop or reset of this directory, then try again.',
        },
      )
    }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return await work()
}
