/** The demos as a person runs them: to their end, in a terminal that is none. */
import { expect, inject, test } from 'vitest'
import { openProject } from '../../local/project.ts'
import '../support/provided.ts'

/** Runs `npm run demo` as npm does, and gives what it has said. */
async function demo(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command('node', {
    args: ['local/run.mjs', 'demo/main.ts', ...args],
    cwd: openProject().root,
    // What it leaves would be found in the directory of this run.
    env: { NO_COLOR: '1', TMPDIR: inject('runDir') },
    stdin: 'null',
  }).output()
  const decoder = new TextDecoder()
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) }
}

async function demoDirectories(): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(inject('runDir')))
  return entries.map(({ name }) => name).filter((name) => name.startsWith('holdfast-test-'))
}

test(
  'npm run demo -- breaker shows what it promises, in lines that a program can read, and leaves nothing',
  async () => {
    const { code, stdout, stderr } = await demo('breaker', '--json')
    const lines = stdout.trim().split('\n').map((line) => JSON.parse(line))
    const verdicts = lines.filter(({ kind }) => kind === 'verdict')
    expect(verdicts.filter(({ holds }) => !holds), stdout).toEqual([])
    expect(verdicts.length).toBeGreaterThanOrEqual(5)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(await demoDirectories()).toEqual([])
  },
  60_000,
)

test('a demo that there is not is refused, with what there is', async () => {
  const { code, stderr } = await demo('broken')
  expect(code).toBe(1)
  expect(stderr).toContain('There is no demo "broken"')
  expect(stderr).toContain('npm run demo -- breaker')
})
