/** Runs a program to its end and gives what it said. */
import { delimiter, join } from 'node:path'
import type { Project } from '../local/project.ts'

export interface Finished {
  success: boolean
  stdout: string
  /** Both streams, for people. */
  output: string
}

/** Programs of npm packages are found by name. Colours are off, nothing is read from the keyboard. */
export async function runTool(project: Project, program: string, args: string[]): Promise<Finished> {
  const bin = join(project.root, 'node_modules', '.bin')
  const { success, stdout, stderr } = await new Deno.Command(
    program === 'deno' ? Deno.execPath() : join(bin, program),
    {
      args,
      cwd: project.root,
      env: { NO_COLOR: '1', RUST_BACKTRACE: '0', PATH: [bin, Deno.env.get('PATH')].join(delimiter) },
      stdin: 'null',
    },
  ).output()
  const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes))
  return { success, stdout: out ?? '', output: `${out}${err}`.trim() }
}
