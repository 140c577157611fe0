import { symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { openProject, type Project } from '../../../local/project.ts'
import { importEffects } from '../../../tools/checks/importEffects.ts'
import { scratchProject } from './scratchProject.ts'

const file = 'supabase/functions/_shared/core/probe.ts'

test('a file that only declares has no import-time effect', async () => {
  const project = await projectWith('export const wait = () => setTimeout(() => {}, 1)\n')
  expect(await importEffects.find(project)).toEqual([])
})

test('a package may look at the environment, and finds nothing', async () => {
  const project = await projectWith(`export { nodeENV } from 'npm:std-env'\n`)
  expect(await importEffects.find(project)).toEqual([])
})

test.each([
  ['a timer', 'setInterval(() => {}, 1_000)', 'calls setInterval'],
  ['output', `console.log('hello')`, 'calls log'],
  ['a read of the environment', `export const url = Deno.env.get('SUPABASE_URL')`, 'env access'],
  [
    'a read as in Node',
    `import process from 'node:process'\nexport const url = process.env.URL`,
    'reads URL',
  ],
  ['a connection', `await Deno.connect({ port: 1 })`, 'net access'],
])('%s at import is found', async (_case, code, message) => {
  const project = await projectWith(`${code}\n`)
  const problems = await importEffects.find(project)
  expect(problems.map((problem) => problem.message).join()).toContain(message)
})

async function projectWith(code: string): Promise<Project> {
  const project = await scratchProject({ [file]: code, 'supabase/functions/deno.json': '{ "imports": {} }' })
  await symlink(join(openProject().root, 'node_modules'), join(project.root, 'node_modules'))
  return project
}
