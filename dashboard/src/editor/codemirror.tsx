// CodeMirror, in a shadow tree: there it uses constructed style sheets, which a strict content
// security policy allows, and not `<style>` elements, which it does not.

import { autocompletion, closeBrackets, closeBracketsKeymap, completeAnyWord } from '@codemirror/autocomplete';
import { defaultKeymap, history, historyKeymap, indentWithTab } from '@codemirror/commands';
import { javascript } from '@codemirror/lang-javascript';
import { HighlightStyle, bracketMatching, foldGutter, foldKeymap, indentOnInput, syntaxHighlighting } from '@codemirror/language';
import { unifiedMergeView } from '@codemirror/merge';
import { highlightSelectionMatches, searchKeymap } from '@codemirror/search';
import { EditorState, type Extension } from '@codemirror/state';
import {
  EditorView, crosshairCursor, drawSelection, highlightActiveLine, highlightActiveLineGutter,
  highlightSpecialChars, keymap, lineNumbers, rectangularSelection,
} from '@codemirror/view';
import { tags } from '@lezer/highlight';
import { useEffect, useRef } from 'preact/hooks';

export interface EditorProps {
  value: string;
  path: string;
  onChange: (value: string) => void;
  onDeploy?: () => void;
}

export interface DiffProps {
  before: string;
  after: string;
  path: string;
}

// Colours are variables of the page, which shadow trees inherit: a change of theme needs no code.
const look = EditorView.theme({
  '&': { color: 'var(--text)', backgroundColor: 'transparent', fontSize: '13px', height: '100%' },
  '&.cm-focused': { outline: 'none' },
  '.cm-scroller': { fontFamily: 'var(--mono)', lineHeight: '1.6', overflow: 'auto' },
  '.cm-content': { padding: '12px 0', caretColor: 'var(--text)' },
  '.cm-gutters': { backgroundColor: 'transparent', color: 'var(--muted)', border: 'none' },
  '.cm-lineNumbers .cm-gutterElement': { padding: '0 8px 0 14px' },
  '.cm-activeLine, .cm-activeLineGutter': { backgroundColor: 'var(--hover)' },
  '.cm-activeLineGutter': { color: 'var(--text)' },
  '.cm-cursor': { borderLeftColor: 'var(--text)' },
  '&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground': { background: 'var(--selection)' },
  '.cm-selectionMatch': { backgroundColor: 'var(--selection)' },
  '&.cm-focused .cm-matchingBracket': { backgroundColor: 'var(--selection)', outline: '1px solid var(--line-strong)' },
  '.cm-panels': { backgroundColor: 'var(--raised)', color: 'var(--text)', borderColor: 'var(--line)' },
  '.cm-textfield': { backgroundColor: 'var(--surface)', border: '1px solid var(--line-strong)', color: 'var(--text)', borderRadius: '4px' },
  '.cm-button': { backgroundImage: 'none', backgroundColor: 'var(--surface)', border: '1px solid var(--line-strong)', color: 'var(--text)', borderRadius: '4px' },
  '.cm-tooltip': { backgroundColor: 'var(--raised)', color: 'var(--text)', border: '1px solid var(--line-strong)', borderRadius: '6px' },
  '.cm-tooltip-autocomplete ul li[aria-selected]': { backgroundColor: 'var(--accent)', color: 'var(--on-accent)' },
  '.cm-foldPlaceholder': { backgroundColor: 'var(--hover)', border: 'none', color: 'var(--muted)' },
  '.cm-changedLine': { backgroundColor: 'var(--good-wash) !important' },
  '.cm-changedText': { background: 'var(--good-mark) !important' },
  '.cm-deletedChunk': { backgroundColor: 'var(--bad-wash) !important' },
  '.cm-deletedChunk .cm-deletedText': { background: 'var(--bad-mark) !important' },
  '.cm-collapsedLines': { background: 'var(--hover) !important', color: 'var(--muted) !important' },
});

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword], color: 'var(--code-keyword)' },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: 'var(--code-string)' },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: 'var(--code-number)' },
  { tag: [tags.comment], color: 'var(--muted)', fontStyle: 'italic' },
  { tag: [tags.function(tags.variableName), tags.function(tags.propertyName)], color: 'var(--code-function)' },
  { tag: [tags.typeName, tags.className, tags.namespace], color: 'var(--code-type)' },
  { tag: [tags.invalid], color: 'var(--bad)' },
]);

function language(path: string): Extension {
  if (!/\.[cm]?[jt]sx?$/.test(path)) return [];
  return javascript({ typescript: /\.[cm]?tsx?$/.test(path), jsx: path.endsWith('x') });
}

/** The page has `Mod-Enter`: it sends the request of the invoke panel. */
const ownKeymap = defaultKeymap.filter(({ key }) => key !== 'Mod-Enter');

const shared: Extension = [look, syntaxHighlighting(colours), lineNumbers(), highlightSpecialChars(), EditorState.tabSize.of(2)];

function mount(host: HTMLElement, state: (root: ShadowRoot) => EditorState): EditorView {
  const root = host.shadowRoot ?? host.attachShadow({ mode: 'open' });
  return new EditorView({ state: state(root), parent: root, root });
}

export function CodeEditor({ value, path, onChange, onDeploy }: EditorProps) {
  const host = useRef<HTMLDivElement>(null);
  const view = useRef<EditorView>();
  const told = useRef(value);
  const callbacks = useRef({ onChange, onDeploy });
  callbacks.current = { onChange, onDeploy };

  useEffect(() => {
    if (!host.current) return;
    const deploy = () => {
      callbacks.current.onDeploy?.();
      return true;
    };
    const editor = mount(host.current, () => EditorState.create({
      doc: value,
      extensions: [
        shared, language(path), history(), foldGutter(), drawSelection(), indentOnInput(), bracketMatching(),
        closeBrackets(), autocompletion({ override: [completeAnyWord] }), rectangularSelection(), crosshairCursor(),
        highlightActiveLine(), highlightActiveLineGutter(), highlightSelectionMatches(),
        EditorView.contentAttributes.of({ 'aria-label': `Code of ${path}`, tabindex: '0' }),
        keymap.of([
          { key: 'Mod-s', run: deploy, preventDefault: true },
          ...closeBracketsKeymap, ...ownKeymap, ...searchKeymap, ...historyKeymap, ...foldKeymap, indentWithTab,
        ]),
        EditorView.updateListener.of((update) => {
          if (!update.docChanged) return;
          told.current = update.state.doc.toString();
          callbacks.current.onChange(told.current);
        }),
      ],
    }));
    view.current = editor;
    return () => editor.destroy();
  }, [path]);

  useEffect(() => {
    // What the editor said itself comes back late, when more may have been typed.
    const editor = view.current;
    if (editor && value !== told.current) {
      told.current = value;
      editor.dispatch({ changes: { from: 0, to: editor.state.doc.length, insert: value } });
    }
  }, [value]);
  return <div class="editor" ref={host} />;
}

export function CodeDiff({ before, after, path }: DiffProps) {
  const host = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!host.current) return;
    const editor = mount(host.current, () => EditorState.create({
      doc: after,
      extensions: [
        shared, language(path), EditorState.readOnly.of(true), EditorView.editable.of(false),
        EditorView.contentAttributes.of({ 'aria-label': `Changes of ${path}`, tabindex: '0' }),
        unifiedMergeView({ original: before, mergeControls: false, collapseUnchanged: { margin: 3, minSize: 6 } }),
      ],
    }));
    return () => editor.destroy();
  }, [before, after, path]);
  return <div class="editor diff" ref={host} />;
}
