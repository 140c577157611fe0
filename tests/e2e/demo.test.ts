/** The demos as a person runs them: to their end, in a terminal that is none. */
import { expect, inject, test } from 'vitest'
import { openProject } from '../../local/project.ts'
import '../support/provided.ts'

/** `npm run demo` as npm runs it. */
function demoCommand(...args: string[]): Deno.Command {
  return new Deno.Command('node', {
    args: ['local/run.mjs', 'demo/main.ts', ...args],
    cwd: openProject().root,
    // What it leaves would be found in the directory of this run.
    env: { NO_COLOR: '1', TMPDIR: inject('runDir') },
    stdin: 'null',
    stdout: 'piped',
    stderr: 'piped',
  })
}

/** Runs it to its end, and gives what it has said. */
async function demo(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await demoCommand(...args).output()
  const decoder = new TextDecoder()
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) }
}

async function demoDirectories(): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(inject('runDir')))
  return entries.map(({ name }) => name).filter((name) => name.startsWith('holdfast-test-'))
}

test.each([['breaker', 5], ['audit', 7]])(
  'npm run demo -- %s shows what it promises, in lines that a program can read, and leaves nothing',
  async (name, promises) => {
    const { code, stdout, stderr } = await demo(name, '--json')
    const lines = stdout.trim().split('\n').map((line) => JSON.parse(line))
    const verdicts = lines.filter(({ kind }) => kind === 'verdict')
    expect(verdicts.filter(({ holds }) => !holds), stdout).toEqual([])
    expect(verdicts.length).toBeGreaterThanOrEqual(promises)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(await demoDirectories()).toEqual([])
  },
  60_000,
)

test('a demo that is interrupted stops what it has started, and leaves nothing', async () => {
  await using running = demoCommand('audit', '--json').spawn()
  const stdout = running.stdout.pipeThrough(new TextDecoderStream()).getReader()
  // Its first line comes when everything runs.
  const { value } = await stdout.read()
  expect(value).toContain('"kind":"title"')
  running.kill('SIGINT')
  const rest = async () => {
    for (let read = await stdout.read(); !read.done; read = await stdout.read()) {
      expect(read.value).not.toContain('verdict')
    }
  }
  const [{ code }, stderr] = await Promise.all([running.status, running.stderr.text(), rest()])
  expect({ code, stderr }).toEqual({ code: 130, stderr: '' })
  expect(await demoDirectories()).toEqual([])
}, 60_000)

test('a demo that there is not is refused, with what there is', async () => {
  const { code, stderr } = await demo('broken')
  expect(code).toBe(1)
  expect(stderr).toContain('There is no demo "broken"')
  expect(stderr).toContain('npm run demo -- breaker')
})
