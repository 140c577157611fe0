/** What can be seen in the files as text: their length, their links, and tests that were set aside. */
import { dirname, join } from 'node:path'
import { projectFiles } from '../files.ts'
import { codeFolders } from './toolchain.ts'
import type { Check, Problem } from './problem.ts'

const longestFile = 400
const generated = /\.types\.ts$/

export const fileLength: Check = {
  name: 'file length',
  async find(project) {
    const problems: Problem[] = []
    const folders = [...codeFolders, 'supabase/migrations', 'console', '.ci']
    for (const file of await projectFiles(project.root, folders, ['.ts', '.tsx', '.mjs', '.sql', 'run'])) {
      if (generated.test(file.path)) continue
      const lines = (await Deno.readTextFile(file.absolute)).trimEnd().split('\n').length
      if (lines <= longestFile) continue
      problems.push({
        where: file.path,
        message: `has ${lines} lines, more than ${longestFile}`,
        fix: 'Take out the second idea that is in it, into a file of its own.',
      })
    }
    return problems
  },
}

/** Links of our own pages: the file is there, and so is the heading. */
export const links: Check = {
  name: 'links',
  async find(project) {
    const problems: Problem[] = []
    const pages = await projectFiles(project.root, ['.'], ['.md'])
    for (const page of pages) {
      const text = await Deno.readTextFile(page.absolute)
      for (const { target, line } of localLinks(text)) {
        const [path = '', anchor] = target.split('#')
        const file = path === '' ? page.absolute : join(dirname(page.absolute), decodeURIComponent(path))
        const message = await judgeLink(file, anchor)
        if (message === undefined) continue
        problems.push({
          where: `${page.path}:${line}`,
          message: `${target}: ${message}`,
          fix: 'Correct the link, or add what it points to.',
        })
      }
    }
    return problems
  },
}

/** A test that is set aside proves nothing, and one that is singled out sets all others aside. */
export const setAsideTests: Check = {
  name: 'tests set aside',
  async find(project) {
    const problems: Problem[] = []
    for (const file of await projectFiles(project.root, ['tests'], ['.test.ts'])) {
      const lines = (await Deno.readTextFile(file.absolute)).split('\n')
      lines.forEach((line, index) => {
        const found = /\b(?:test|it|describe|suite|bench)(?:\.\w+)*\.(only|skip|todo|fails)\b/.exec(line)
        if (!found) return
        problems.push({
          where: `${file.path}:${index + 1}`,
          message: `.${found[1]}`,
          fix: 'Remove it; where a machine cannot run a test, `skipIf` says under which condition.',
        })
      })
    }
    return problems
  },
}

function localLinks(text: string): { target: string; line: number }[] {
  const found: { target: string; line: number }[] = []
  let inCode = false
  text.split('\n').forEach((content, index) => {
    if (/^\s*(```|~~~)/.test(content)) inCode = !inCode
    if (inCode) return
    const prose = content.replaceAll(/`[^`]*`/g, '')
    const inline = prose.matchAll(/\]\(\s*<?([^)\s>]+)>?[^)]*\)/g)
    const references = prose.matchAll(/^\s*\[[^\]]+\]:\s*(\S+)/g)
    for (const [, target = ''] of [...inline, ...references]) {
      if (!/^[a-z][a-z+.-]*:|^\/\//i.test(target)) found.push({ target, line: index + 1 })
    }
  })
  return found
}

async function judgeLink(file: string, anchor: string | undefined): Promise<string | undefined> {
  let text = ''
  try {
    if ((await Deno.stat(file)).isFile) text = await Deno.readTextFile(file)
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return 'there is no such file'
    throw error
  }
  if (!anchor || !file.endsWith('.md')) return undefined
  return headingsOf(text).has(anchor) ? undefined : 'there is no such heading'
}

/** The anchors that GitHub gives headings. */
function headingsOf(text: string): Set<string> {
  const anchors = new Set<string>()
  const seen = new Map<string, number>()
  for (const [, heading = ''] of text.matchAll(/^#{1,6}\s+(.*?)\s*#*$/gm)) {
    const slug = heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, '').trim().replaceAll(/\s/g, '-')
    const count = seen.get(slug) ?? 0
    seen.set(slug, count + 1)
    anchors.add(count === 0 ? slug : `${slug}-${count}`)
  }
  return anchors
}
